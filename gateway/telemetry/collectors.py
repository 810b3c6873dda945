"""State read when /metrics asks: keys, caches, pools, provisioning."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from platform import python_version
from typing import Any

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway import IS_COMPILED, __version__
from gateway.actors.callers import Callers
from gateway.identity.assertion import Assertions
from gateway.telemetry.metrics import gauge
from gateway.upstream.pool import Upstream
from gateway.upstream.tunnel import Tunnels
from gateway.verify.signing_keys import SigningKeys
from provisioning.arrivals import DURATION_BOUNDS_S, Arrivals, Tally
from provisioning.clerk_api import ClerkApi
from provisioning.database.pool import Database
from provisioning.errors import DatabaseUnavailable
from provisioning.key_ring import KeyRing
from provisioning.token_uses import TokenUses
from provisioning.tokens import Tokens

ACROSS_WORKERS: Mapping[str, Callable[[float, float], float]] = {
    "gateway_build_info": max,
    "gateway_config_last_reload_success": min,
    "gateway_config_last_reload_success_timestamp_seconds": min,
    "gateway_jwks_age_seconds": max,  # the worker that is worst off
    "gateway_upstream_addresses_resting": max,  # each worker judges the same addresses for itself
}
"""How gauges of several workers become one; those not named here add up, as counters and histograms do."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What state is read from."""

    keys: SigningKeys
    database: Database
    arrivals: Arrivals
    clerk_api: ClerkApi
    callers: Callers
    upstreams: Mapping[str, Upstream]
    tunnels: Tunnels
    tokens: Tokens
    token_uses: TokenUses
    ring: KeyRing
    assertions: Assertions

    def go_on(self, before: "Sources") -> None:
        """Go on with the counts of those whose place these take, and which may still count: nothing is lost."""
        if self.keys is not before.keys:  # the only ones that may have begun to count
            for result, count in self.keys.fetches.items():
                before.keys.fetches[result] += count
            self.keys.fetches = before.keys.fetches
        self.callers.look_ups = before.callers.look_ups
        self.arrivals.tally = before.arrivals.tally
        self.database.failures = before.database.failures
        self.clerk_api.outcomes = before.clerk_api.outcomes

    async def database_answers(self) -> bool:
        """Ask PostgreSQL for a sign of life."""
        try:
            async with self.database.connection() as connection:
                await connection.fetchval("SELECT 1")
        except DatabaseUnavailable:
            return False
        return True

    async def keys_known(self) -> bool:
        """Tell whether a session token could be verified now."""
        return self.keys.ready


class StateCollector(Collector):
    """Renders the state of everything that is counted elsewhere."""

    def __init__(self, sources: Callable[[], Sources], retired: Callable[[], Collection[Upstream]] = tuple) -> None:
        """Remember where to look.

        Args:
            sources: Those in force.
            retired: Upstreams of earlier settings that still carry something.
        """
        self._sources = sources
        self._retired = retired

    def collect(self) -> Iterator[Metric]:
        """Read every source once (prometheus_client's Collector)."""
        sources = self._sources()
        labels = {"version": __version__, "python": python_version(), "compiled": "yes" if IS_COMPILED else "no"}
        yield gauge("gateway_build_info", "What runs.", list(labels), [(list(labels.values()), 1)])
        yield _counter("gateway_jwks_fetches", "Fetches of signing keys.", "result", sources.keys.fetches)
        age = sources.keys.age_s()
        yield gauge("gateway_jwks_age_seconds", "Since signing keys were fetched.", [], [([], age)])
        yield _counter(
            "gateway_caller_cache_requests", "Look-ups in the near cache.", "result", _look_ups(sources.callers)
        )
        yield CounterMetricFamily(
            "gateway_caller_renewals",
            "Callers in use whose records were read again before they were old.",
            value=sources.callers.look_ups.renewals,
        )
        yield _counter("gateway_database_failures", "Failed uses of PostgreSQL.", "reason", sources.database.failures)
        yield _counter("gateway_clerk_api_requests", "Backend API requests.", "outcome", sources.clerk_api.outcomes)
        tally = sources.arrivals.tally
        yield CounterMetricFamily("gateway_provisioned_users", "Users created.", value=tally.provisioned_users)
        yield CounterMetricFamily("gateway_provisioning_failures", "Provisionings that failed.", value=tally.failures)
        yield _provisioning_durations(tally)
        yield gauge(
            "gateway_upstream_connections",
            "Connections to upstreams.",
            ["upstream", "state"],
            [(list(labels), count) for labels, count in self._connections().items()],
        )
        open_now = [([route], count) for route, count in sources.tunnels.open.items()]
        yield gauge("gateway_websockets_open", "Websockets open.", ["route"], open_now)
        yield _counter("gateway_websocket_closes", "Websockets that ended.", "reason", sources.tunnels.closes)
        yield from _addresses(sources.upstreams.values())

    def _connections(self) -> Mapping[tuple[str, str], int]:
        counts: Counter[tuple[str, str]] = Counter()
        for upstream in (*self._sources().upstreams.values(), *self._retired()):
            counts[upstream.name, "idle"] += upstream.idle
            counts[upstream.name, "busy"] += upstream.open - upstream.idle
            counts[upstream.name, "queued"] += upstream.queued
            counts[upstream.name, "upgraded"] += upstream.upgraded
        return counts


def _addresses(upstreams: Iterable[Upstream]) -> Iterator[Metric]:
    """Health of the upstreams' addresses, told by their places in the settings."""
    failures = CounterMetricFamily(
        "gateway_upstream_address_failures",
        "Dials that failed, and new connections that died before an answer.",
        labels=["upstream", "address_index"],
    )
    resting = []
    for upstream in upstreams:
        for health in upstream.rotation.addresses:
            failures.add_metric([upstream.name, str(health.index)], health.failures)
        resting.append(([upstream.name], upstream.rotation.resting))
    yield failures
    yield gauge("gateway_upstream_addresses_resting", "Addresses left alone for a while.", ["upstream"], resting)


def _counter(name: str, help_text: str, label: str, counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value, count in counts.items():
        family.add_metric([str(value)], count)
    return family


def _look_ups(callers: Callers) -> Mapping[str, int]:
    counts = callers.look_ups
    return {"hit": counts.hits, "miss": counts.misses, "stale": counts.stale}


def _provisioning_durations(tally: Tally) -> Metric:
    running, buckets = 0, []
    for bound, count in zip((*map(str, DURATION_BOUNDS_S), "+Inf"), tally.duration_counts, strict=True):
        running += count
        buckets.append((bound, float(running)))
    family = HistogramMetricFamily("gateway_provisioning_duration_seconds", "Provisionings.")
    family.add_metric([], buckets, tally.duration_sum_s)
    return family
