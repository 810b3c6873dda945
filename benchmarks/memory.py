"""What a remembered caller costs in memory: `python -m benchmarks.memory --principals 1000000`.

The near cache is the gateway's own, filled through its public methods as in `lookups.py`; each principal presents one
session. Prints bytes per principal, in this process, and as it stands in Redis.
"""

import argparse
import asyncio
import gc
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.lookups import filled
from config.model import Route
from gateway.policy.routes import RouteTable
from gateway.shared_state.facts import STANDINGS, Reading
from provisioning.records import Organization, Role, Standing, User

_PAGE = 4096
_SEAL = 32


def resident() -> int:
    """Bytes of this process in main memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def near_bytes(principals: int) -> float:
    """Bytes of a principal in the near cache."""
    (rule,) = RouteTable.compile([Route(path="/**", auth="required", upstream="app")]).routes
    asyncio.run(filled(1000, rule))
    gc.collect()
    before = resident()
    callers, digests = asyncio.run(filled(principals, rule))
    gc.collect()
    taken = resident() - before
    if callers.known(digests[0]) is None or callers.known(digests[-1]) is None:
        raise RuntimeError("the cache forgot a caller")
    return taken / principals


def shared_bytes() -> int:
    """Bytes of a usual value in Redis, beside what Redis needs for any."""
    now = datetime.now(UTC)
    user = User("usr_" + "x" * 22, "user_" + "x" * 27, Role.USER, now, now, "somebody@example.com", "Some Body")
    standing = Standing(user, Organization("org_" + "x" * 22, None, "Personal", now, now), "admin")
    written = STANDINGS.to_bytes(Reading(standing, 1, now.timestamp())) or b""
    return len("gw:") + 64 + _SEAL + len(written)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--principals", type=int, default=100_000)
    count: int = parser.parse_args().principals
    each = near_bytes(count)
    print(f"near cache: {count} principals, {each:.0f} bytes each, {each * count / 2**20:.0f} MiB")
    print(f"Redis: {shared_bytes()} bytes of name and value for a person")


if __name__ == "__main__":
    main()
