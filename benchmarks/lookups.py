"""The near cache with few and with a million principals, in process: what a look-up costs.

Signing a million tokens would take ten minutes, so the two neighbours of the cache are stand-ins here: verification
believes the token's text, and records are made up. The cache itself is the gateway's own, through its public methods.
`--principals` measures the same over the wire, with real tokens.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from config.model import Cache, Route
from gateway.actors.callers import Callers
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.policy.routes import CompiledRoute, RouteTable
from gateway.verify.principal import Principal
from gateway.verify.session import SessionRules
from gateway.verify.signing_keys import SigningKeys
from gateway.verify.verifier import Verifier
from provisioning.arrivals import Arrivals
from provisioning.audit import GATEWAY, Origin
from provisioning.records import Organization, Role, Standing, Subject, User

_LIFE_S = 3600.0
_SAMPLE = 200_000


class _Believing(Verifier):
    """Takes the token's text for the subject, and never asks for keys."""

    def __init__(self) -> None:
        super().__init__(SigningKeys("http://127.0.0.1:9/"), SessionRules(issuers=()))

    def verify_now(self, credential: Credential) -> Principal:
        expires_at = time.time() + _LIFE_S
        return Principal(CredentialKind.SESSION, Carrier.HEADER, "https://issuer", credential.token, expires_at)


class _MadeUp(Arrivals):
    """Records without a database."""

    def __init__(self) -> None:
        """Nothing of the base is needed."""

    async def standing(self, subject: Subject, origin: Origin = GATEWAY) -> Standing:
        now = datetime.now(UTC)
        user = User(f"usr_{subject.clerk_user_id}", subject.clerk_user_id, Role.USER, now, now)
        organization = Organization(f"org_{subject.clerk_user_id}", None, "Personal", now, now)
        return Standing(user, organization, "admin")


@dataclass(frozen=True, slots=True)
class Lookups:
    """Nanoseconds of one look-up, by rounds; a look-up takes the hash of the token and gives the caller."""

    principals: int
    nanoseconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.nanoseconds)


async def filled(count: int, rule: CompiledRoute) -> tuple[Callers, list[bytes]]:
    """Make a cache that knows so many principals; gives the keys under which it does."""
    settings = Cache(near_entries=count, near_ttl=_LIFE_S)
    callers = Callers(_Believing(), _MadeUp(), settings)
    digests = []
    for number in range(count):
        credential = Credential(CredentialKind.SESSION, Carrier.HEADER, f"user_{number:027d}")
        await callers.resolve(credential, rule)
        digests.append(credential.digest)
    return callers, digests


def sampled(digests: Sequence[bytes], chance: random.Random) -> list[bytes]:
    """Take keys by chance, as copies: a request brings its own, and the cache's must be read from memory."""
    return [bytes(bytearray(chance.choice(digests))) for _ in range(_SAMPLE)]


def timed(callers: Callers, digests: Sequence[bytes]) -> float:
    """Nanoseconds of one look-up, over all of these.

    Raises:
        RuntimeError: One was not known.
    """
    known = callers.known
    start = time.perf_counter_ns()
    for digest in digests:
        known(digest)
    passed = time.perf_counter_ns() - start
    if any(known(digest) is None for digest in digests):
        raise RuntimeError("the cache forgot a caller")
    return passed / len(digests)


def measure(few: int, many: int, rounds: int) -> tuple[Lookups, Lookups]:
    """Measure look-ups of callers taken by chance, in interleaved rounds."""
    (rule,) = RouteTable.compile([Route(path="/**", auth="required", upstream="app")]).routes
    chance = random.Random(7)
    taken: list[tuple[Callers, list[bytes]]] = []
    for count in (few, many):
        callers, digests = asyncio.run(filled(count, rule))
        taken.append((callers, sampled(digests, chance)))
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for (callers, digests), row in zip(taken, times, strict=True):
            nanoseconds = timed(callers, digests)
            if number:  # the first round only warms up
                row.append(nanoseconds)
    return Lookups(few, tuple(times[0])), Lookups(many, tuple(times[1]))
