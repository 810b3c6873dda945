"""The speed this gateway must show: ratios in one run, and whether they were reached. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from statistics import median

from benchmarks.results import Results, Spread, ratio

OURS = "actorgate"
_RATE, _P99, _PER_CPU = attrgetter("rate"), attrgetter("p99_ms"), attrgetter("per_cpu_second")
_HELD = 8_000


@dataclass(frozen=True, slots=True)
class Goal:
    """One row of the table.

    Attributes:
        measured: None when the run has nothing to say about it.
        unit: Written after figures.
        less_is_better: The floor is then the most that will do.
    """

    against: str
    floor: float
    goal: float
    measured: Callable[[Results], Spread | None]
    unit: str = "×"
    less_is_better: bool = False

    def verdict(self, value: float) -> str:
        """Which of the two a figure reaches."""
        sign = -1 if self.less_is_better else 1
        if sign * value >= sign * self.goal:
            return "goal reached"
        return "floor reached" if sign * value >= sign * self.floor else "**below the floor**"


def against(
    scenario: str, ours: str, theirs: str, value: Callable[..., float] = _RATE
) -> Callable[[Results], Spread | None]:
    """Compare two systems under a scenario."""
    return lambda results: ratio(results.rounds_of(scenario, ours), results.rounds_of(scenario, theirs), value)


def idle_socket(results: Results) -> Spread | None:
    """KiB of an idle websocket among 8,000."""
    sockets = results.sockets.get(OURS)
    held = [idle.kb_each for idle in sockets.idle if idle.connections == _HELD] if sockets else []
    return Spread.of(held) if held else None


def lookups_within_a_request(results: Results) -> Spread | None:
    """How much of its requests per processor second the gateway keeps when a look-up takes as long as among many."""
    rows = results.rounds_of("get-64", OURS)
    if results.lookups is None or not rows:
        return None
    few, many = results.lookups
    request_ns = 1e9 / Spread.of([row.per_cpu_second for row in rows]).median
    kept = [request_ns / (request_ns + slow - few.median) for slow in many.nanoseconds]
    return Spread.of(kept)


def first_request(results: Results) -> Spread | None:
    """Milliseconds that making a person's records adds to their first request, between the medians of rounds."""
    rounds = results.first_requests
    return Spread.of([median(each.new) - median(each.known) for each in rounds]) if rounds else None


GOALS = (
    Goal("ClientSession proxy", 4, 6, against("get-64", OURS, "client-session")),
    Goal("Caddy reverse_proxy without auth", 2.5, 4, against("get-64", OURS, "caddy")),
    Goal("Envoy jwt_authn", 1.2, 1.8, against("get-64", OURS, "envoy")),
    Goal("HAProxy jwt_verify", 1.2, 1.8, against("get-64", OURS, "haproxy")),
    Goal("nginx proxy_pass without auth", 0.5, 0.8, against("get-64", OURS, "nginx")),
    Goal(
        "p99 at 64 connections, Envoy's",
        1,
        0.7,
        against("get-64", OURS, "envoy", _P99),
        less_is_better=True,
    ),
    Goal("the aiohttp lane against ClientSession", 2.5, 4, against("get-64", "aiohttp-lane", "client-session")),
    Goal(f"idle websocket, {_HELD:,} held in one process", 12, 8, idle_socket, unit=" KB", less_is_better=True),
    Goal("1 MB downloads against nginx, bytes/s", 0.4, 0.7, against("download-64", OURS, "nginx")),
    # The load's core is full of wrk and the upstream before nginx's is: this row is not bounded by that.
    Goal("the same, bytes per CPU-second", 0.4, 0.7, against("download-64", OURS, "nginx", _PER_CPU)),
    Goal(
        "2 workers against 1, on one core: requests per CPU-second of the workers",
        0.9,
        1,
        against("workers", "two-workers", "one-worker", _PER_CPU),
    ),
    Goal(
        "1,000 routes against 1: requests per CPU-second",
        0.9,
        1,
        against("routes", "many-routes", "one-route", _PER_CPU),
    ),
    Goal(
        "1,000 routes below one first segment against 1: requests per CPU-second",
        0.9,
        1,
        against("routes", "api-routes", "one-route", _PER_CPU),
    ),
    Goal("12 flags against none: requests per CPU-second", 0.9, 1, against("flags", "flags", "no-flags", _PER_CPU)),
    Goal(
        "cached API tokens against cached sessions: requests per CPU-second",
        0.91,
        1,
        against("get-64-api-token", "api-tokens", "sessions", _PER_CPU),
    ),
    Goal("1,000,000 cached principals against 10: share of a request's speed kept", 0.9, 1, lookups_within_a_request),
    Goal(
        "many real principals against 10, over the wire: requests per CPU-second",
        0.9,
        1,
        against("principals", "many-principals", "few-principals", _PER_CPU),
    ),
    Goal("first request of a new person, above a known one's", 10, 5, first_request, unit=" ms", less_is_better=True),
)
