"""What requests are lost while something happens to the gateway under load: counts, no rates.

    python -m benchmarks.disturbances          # a table; about a minute and a half

One gateway of two workers before two addresses of an upstream, 64 connections of wrk. An answer other than 2xx or 3xx,
a connection that was refused, reset or cut, and a request without an answer in time are counted apart. For the drain
the load is a client of our own: wrk counts it as a broken request when nobody listens any more.
"""

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import configurations
from benchmarks.processes import LOAD_CORE, program, started, tree
from benchmarks.scenarios import GET_64, SMALL_ANSWER, script
from benchmarks.surroundings import Surroundings, surroundings
from benchmarks.systems import Running, gateway
from tests.support.load import load_on
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer

SECONDS = 8
_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_OTHERS = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_REQUESTS = re.compile(r"(\d+) requests in")
_BOTH_CORES = "0,1"


@dataclass(frozen=True, slots=True)
class Losses:
    """What one run of wrk told.

    Attributes:
        answered: Requests that got any answer.
        refused: Connections nobody took.
        broken: Connections that ended under a request, in reading or writing.
        timed_out: Requests without an answer in time.
        others: Answers other than 2xx and 3xx.
    """

    answered: int
    refused: int
    broken: int
    timed_out: int
    others: int


def parse_losses(output: str) -> Losses:
    """Read what wrk prints.

    Raises:
        ValueError: It is something else.
    """
    requests, errors, others = (pattern.search(output) for pattern in (_REQUESTS, _ERRORS, _OTHERS))
    if requests is None:
        raise ValueError(f"wrk told no result:\n{output[-2000:]}")
    connect, read, write, timeout = map(int, errors.groups()) if errors is not None else (0, 0, 0, 0)
    return Losses(int(requests[1]), connect, read + write, timeout, int(others[1]) if others is not None else 0)


@dataclass(frozen=True, slots=True)
class Stage:
    """A gateway, and what can happen to it."""

    gateway: Running
    settings: Path
    second_address: int


@contextmanager
def stage(place: Surroundings) -> Iterator[Stage]:
    """Start two workers before two addresses."""
    with ExitStack() as stack:
        redis = RedisServer(place.new_folder("redis"))
        stack.callback(redis.stop)
        redis.start()
        folder, second = place.new_folder("origin"), free_port()
        (folder / "origin.conf").write_text(configurations.origin(folder, second, SMALL_ANSWER, place.files))
        folder.chmod(0o755)
        nginx = [program("nginx"), "-e", "stderr", "-c", str(folder / "origin.conf")]
        second_pid = stack.enter_context(started(nginx, second, LOAD_CORE, folder))
        upstreams = {
            "app": {"addresses": [f"http://127.0.0.1:{place.origin}", f"http://127.0.0.1:{second}"]},
            "sockets": {"url": f"http://127.0.0.1:{place.echo}"},
        }
        changes: dict[str, Any] = {
            "workers": 2,
            "redis": {"url": redis.url},
            "upstreams": upstreams,
            "drain_grace": "5s",
        }
        running = stack.enter_context(gateway(place, cores=_BOTH_CORES, processes=3, **changes))
        settings = max(place.folder.glob("gateway-*/gateway.yaml"), key=lambda path: path.stat().st_mtime)
        yield Stage(running, settings, second_pid)


def nothing(_: Stage) -> None:
    """Leave it alone."""


def reload_thrice(on: Stage) -> None:
    """Change the settings and ask for a reload, three times."""
    for number in range(3):
        text = on.settings.read_text()
        on.settings.write_text(
            text.replace('"routes": [', f'"routes": [{{"path": "/n{number}", "upstream": "app"}}, ', 1)
        )
        os.kill(on.gateway.pids[0], signal.SIGHUP)
        time.sleep(1)


def kill_a_worker(on: Stage) -> None:
    """End one worker as the kernel does when memory is out."""
    os.kill(tree(on.gateway.pids)[1], signal.SIGKILL)


def kill_an_address(on: Stage) -> None:
    """End one of the upstream's two servers, its connections too."""
    for pid in reversed(tree([on.second_address])):
        os.kill(pid, signal.SIGKILL)


async def drain(on: Stage) -> Losses:
    """End the gateway; whoever connects afterwards finds nobody, which is no loss of a request."""
    async with load_on(on.gateway.port, keeping=GET_64.connections, dialling=0) as load:
        await asyncio.sleep(SECONDS / 3)
        os.kill(on.gateway.pids[0], signal.SIGTERM)
        await asyncio.sleep(SECONDS)
    return Losses(load.answered, load.refused, len(load.lost), 0, len(load.statuses - {200}))


DISTURBANCES: dict[str, Callable[[Stage], None]] = {
    "nothing": nothing,
    "three reloads": reload_thrice,
    "a worker killed": kill_a_worker,
    "an upstream address killed": kill_an_address,
}


def observe(on: Stage, lua: Path, disturb: Callable[[Stage], None]) -> Losses:
    """Run wrk, and let something happen in the middle."""
    command = ["taskset", "-c", LOAD_CORE, program("wrk"), "-t1", f"-c{GET_64.connections}", f"-d{SECONDS}s"]
    command += ["--timeout", "5s", "-s", str(lua), f"http://127.0.0.1:{on.gateway.port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        time.sleep(SECONDS / 3)
        disturb(on)
        return parse_losses(load.communicate()[0])


def table(found: dict[str, Losses]) -> str:
    """Write what was found as Markdown."""
    lines = ["| under load | answered | connections refused | requests cut | timed out | other than 2xx |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, losses in found.items():
        counts = (losses.answered, losses.refused, losses.broken, losses.timed_out, losses.others)
        lines.append(f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table; ends with 1 when a reload or a drain lost a request."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found = {}
    with surroundings() as place:
        lua = place.folder / "disturbances.lua"
        lua.write_text(script(GET_64, place.token_file))
        for name, disturb in DISTURBANCES.items():
            with stage(place) as on:
                found[name] = observe(on, lua, disturb)
                print(f"{name}: {found[name]}", flush=True)
        with stage(place) as on:
            found["SIGTERM"] = asyncio.run(drain(on))
    print(table(found))
    lossless = [found["three reloads"], found["SIGTERM"]]
    sys.exit(any(one.broken or one.timed_out or one.others for one in lossless))


if __name__ == "__main__":
    main()
