"""Whether the gateway's cost grows with what it holds or is shown: routes, flags, people, workers, kinds of token."""

import http.client
import json
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.checks import Wrong, check
from benchmarks.processes import LOAD_CORE, SYSTEM_CORE
from benchmarks.rounds import Round, interleaved
from benchmarks.scenarios import GET_64, HOST, SMALL_ANSWER
from benchmarks.surroundings import USERS, Surroundings, token, write_tokens
from benchmarks.systems import Running, System, gateway
from tests.support.redis_server import RedisServer

ROUTES = 1_000
FEW = 10
FLAGS = 12
_BELIEVED = "6h"
_EVERYTHING = {"path": "/**", "auth": "required", "upstream": "app"}


def apart(count: int) -> list[dict[str, Any]]:
    """Rows of which each has a first segment of its own, and at last the one that matches."""
    rows = [{"path": f"/part-{number}/**", "auth": "required", "upstream": "app"} for number in range(count - 1)]
    return [*rows, _EVERYTHING]


def together(count: int) -> list[dict[str, Any]]:
    """Rows as an API has them, all below the first segment of the measured path, and at last the one that matches."""
    return [row | {"path": f"/api{row['path']}"} for row in apart(count)[:-1]] + [_EVERYTHING]


ROUTE_SYSTEMS = (
    System("one-route", "1 route", "", partial(gateway, routes=[_EVERYTHING])),
    System(
        "many-routes", f"{ROUTES:,} routes, each with its own first segment", "", partial(gateway, routes=apart(ROUTES))
    ),
    System("api-routes", f"{ROUTES:,} routes, all below `/api`", "", partial(gateway, routes=together(ROUTES))),
)


@contextmanager
def flags(place: Surroundings) -> Iterator[Running]:
    """Run a gateway that tells flags of a file: shares of users, and values that are equal for all."""
    flag = {"state": "ENABLED", "variants": {"on": True, "off": False}}
    halves = {**flag, "targeting": {"fractional": [["on", 50], ["off", 50]]}}
    names = [f"feature-{number}" for number in range(FLAGS)]
    path = place.new_folder("flags") / "flags.json"
    path.write_text(json.dumps({"flags": dict.fromkeys(names, halves)}))
    declare = {name: {"type": "boolean", "default": False, "expose": ["headers", "client"]} for name in names}
    with gateway(place, flags={"provider": "file", "file": str(path), "declare": declare}) as running:
        yield running


FLAG_SYSTEMS = (
    System("no-flags", "no flags", "", gateway),
    System("flags", f"{FLAGS} flags of a file", "", flags),
)


@contextmanager
def workers(place: Surroundings, *, count: int, cores: str = SYSTEM_CORE) -> Iterator[Running]:
    """Run a gateway of several workers beside a Redis.

    Args:
        place: Where.
        count: Of workers.
        cores: On which they may run. On both they compete with their upstream and the load for the second, and what
            they lose there is not theirs.
    """
    folder = place.new_folder("redis")
    redis = RedisServer(folder)
    redis.start()
    try:
        settings: dict[str, Any] = {"workers": count, "redis": {"url": redis.url}}
        # With one worker there may be no supervisor; with several there must be as many processes at least.
        with gateway(place, cores=cores, processes=count, **settings) as running:
            yield running
    finally:
        redis.stop()


WORKER_SYSTEMS = (
    System("one-worker", "1 worker", "", partial(workers, count=1)),
    System("two-workers", "2 workers on one core", "", partial(workers, count=2)),
    System(
        "two-cores",
        "2 workers on both cores, one of which is its upstream's and the load's",
        "",
        partial(workers, count=2, cores=f"{SYSTEM_CORE},{LOAD_CORE}"),
    ),
)


def remembering(entries: int) -> Callable[[Surroundings], Any]:
    """A gateway with room for so many callers, who are believed throughout the run."""
    return partial(gateway, cache={"near_entries": entries + 1_000, "near_ttl": _BELIEVED})


def compared(
    systems: tuple[System, ...], place: Surroundings, name: str, seconds: float, rounds: int
) -> dict[str, list[Round]]:
    """Measure gateways against each other under the usual load, named after what is compared.

    Raises:
        NotHere: One of them cannot run in this release.
    """
    with ExitStack() as stack:
        running = {}
        for system in systems:
            running[system.name] = stack.enter_context(system.start(place))
            check(system, running[system.name], place)
        files = dict.fromkeys(running, place.token_file)
        return interleaved(running, replace(GET_64, name=name), files, seconds, rounds)


def principal_systems(many: int) -> tuple[System, System]:
    """Two gateways that will know few and many principals."""
    return (
        System("few-principals", f"{FEW} principals cached", "", remembering(FEW)),
        System("many-principals", f"{many:,} principals cached", "", remembering(many)),
    )


def principals(place: Surroundings, many: int, seconds: float, rounds: int) -> dict[str, list[Round]]:
    """Measure a gateway that knows few principals against one that knows many, each with a token of its own.

    Signing takes half a millisecond each, and first sight of a token about as long.
    """
    with ExitStack() as stack:
        running, files = {}, {}
        for system, count in zip(principal_systems(many), (FEW, many), strict=True):
            one = running[system.name] = stack.enter_context(system.start(place))
            tokens = [token(number % USERS, number) for number in range(count)]
            print(f"principals: {count:,} tokens signed", flush=True)
            introduce(one.port, tokens)
            random.Random(7).shuffle(tokens)  # or neighbours in the file would be neighbours in memory
            files[system.name] = write_tokens(Path(place.folder / system.name), tokens)
        return interleaved(running, replace(GET_64, name="principals"), files, seconds, rounds)


CREDENTIAL_SYSTEMS = (
    System("sessions", "cached session tokens", "", gateway),
    System("api-tokens", "cached API tokens", "", gateway),
)


def credentials(place: Surroundings, name: str, seconds: float, rounds: int) -> dict[str, list[Round]]:
    """Measure one gateway under two kinds of credential of the same people, each of whom makes an API token there."""
    with gateway(place) as one:
        made = [api_token(one.port, text) for text in place.tokens]
        files = {"sessions": place.token_file, "api-tokens": write_tokens(place.folder / "api-tokens", made)}
        for tokens in (list(place.tokens), made):
            introduce(one.port, tokens)
        return interleaved(dict.fromkeys(files, one), replace(GET_64, name=name), files, seconds, rounds)


def api_token(port: int, session: str) -> str:
    """Make an API token through the gateway.

    Raises:
        Wrong: It refused to.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Host": HOST, "Authorization": f"Bearer {session}", "Content-Type": "application/json"}
    connection.request("POST", "/users/current/api-tokens", json.dumps({"name": "Benchmark", "scopes": []}), headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != 201:
        raise Wrong(f"making an API token was answered with {answer.status}")
    return str(json.loads(body)["token"])


def introduce(port: int, tokens: list[str]) -> None:
    """Let a gateway see every token once.

    Raises:
        Wrong: It refused one.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for text in tokens:
        connection.request("GET", "/api/things?page=1", headers={"Host": HOST, "Authorization": f"Bearer {text}"})
        answer = connection.getresponse()
        if answer.status != 200 or len(answer.read()) != SMALL_ANSWER:
            raise Wrong(f"a token was answered with {answer.status}")
    connection.close()
