"""State read when /metrics asks: keys, caches, pools, provisioning, the outbox."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from platform import python_version
from typing import Any

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway import IS_COMPILED, __version__
from gateway.actors.callers import Callers
from gateway.flags.telling import FlagTeller
from gateway.identity.assertion import Assertions
from gateway.limits.limiter import Limiter
from gateway.limits.limiter import Tally as Limited
from gateway.revocation.lag import BOUNDS_S as LAG_BOUNDS_S
from gateway.revocation.revocations import Revocations
from gateway.shared_state.tier import SharedTier
from gateway.telemetry.caches import cache_metrics
from gateway.telemetry.metrics import gauge
from gateway.telemetry.usage import Usage
from gateway.upstream.pool import Upstream
from gateway.upstream.tunnel import Tunnels
from gateway.verify.signing_keys import SigningKeys
from provisioning.arrivals import DURATION_BOUNDS_S, Arrivals, Tally
from provisioning.audit_notes import AuditNotes
from provisioning.clerk_api import ClerkApi
from provisioning.database.breaker import Breaker
from provisioning.database.pool import Database
from provisioning.errors import DatabaseUnavailable
from provisioning.key_ring import KeyRing
from provisioning.outbox.effects import TOPICS
from provisioning.outbox.queue import Depth
from provisioning.outbox.tally import Tally as OutboxTally
from provisioning.outbox.worker import Outbox
from provisioning.token_uses import TokenUses
from provisioning.tokens import Tokens

ACROSS_WORKERS: Mapping[str, Callable[[float, float], float]] = {
    "gateway_breaker_open": max,
    "gateway_build_info": max,
    "gateway_config_last_reload_success": min,
    "gateway_config_last_reload_success_timestamp_seconds": min,
    "gateway_flags_generation_age_seconds": max,
    "gateway_jwks_age_seconds": max,  # the worker that is worst off
    "gateway_outbox_pending": max,  # of the one table that all of them share, looked at not quite at once
    "gateway_outbox_oldest_seconds": max,
    "gateway_outbox_dead": max,
    "gateway_revocations_in_touch": min,
    "gateway_upstream_addresses_resting": max,  # each worker judges the same addresses for itself
}
"""How gauges of several workers become one; those not named here add up, as counters and histograms do."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What state is read from.

    Attributes:
        breakers: By dependency.
    """

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
    outbox: Outbox
    notes: AuditNotes
    usage: Usage
    flags: FlagTeller
    limiter: Limiter | None
    revocations: Revocations
    shared: SharedTier | None = None
    breakers: dict[str, Breaker] = field(default_factory=dict)

    def go_on(self, before: "Sources") -> None:
        """Go on with the counts of those whose place these take, and which may still count: nothing is lost."""
        if self.keys is not before.keys:  # the only ones that may have begun to count
            for result, count in self.keys.fetches.items():
                before.keys.fetches[result] += count
            self.keys.fetches = before.keys.fetches
        self.callers.go_on(before.callers)
        self.arrivals.tally = before.arrivals.tally
        self.database.failures = before.database.failures
        self.flags.tally = before.flags.tally
        self.clerk_api.outcomes = before.clerk_api.outcomes
        self.outbox.tally.deliveries = before.outbox.tally.deliveries
        self.notes.go_on(before.notes)
        self.usage.tally = before.usage.tally
        for name, breaker in self.breakers.items():
            old = before.breakers.get(name)
            if old is not None and old is not breaker:
                breaker.trips += old.trips
        if self.limiter is not None and before.limiter is not None:
            self.limiter.tally = before.limiter.tally
        if self.shared is not None and before.shared is not None:
            self.shared.go_on(before.shared)

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
        yield from cache_metrics(sources.callers.look_ups, sources.shared)
        yield CounterMetricFamily(
            "gateway_caller_renewals",
            "Callers in use whose records were read again before they were old.",
            value=sources.callers.look_ups.renewals,
        )
        yield _counter("gateway_database_failures", "Failed uses of PostgreSQL.", "reason", sources.database.failures)
        yield _counter("gateway_clerk_api_requests", "Backend API requests.", "outcome", sources.clerk_api.outcomes)
        yield from _breakers(sources.breakers)
        tally = sources.arrivals.tally
        yield CounterMetricFamily("gateway_provisioned_users", "Users created.", value=tally.provisioned_users)
        yield CounterMetricFamily("gateway_provisioning_failures", "Provisionings that failed.", value=tally.failures)
        yield _provisioning_durations(tally)
        yield from _outbox(sources.outbox.tally)
        yield gauge(
            "gateway_upstream_connections",
            "Connections to upstreams.",
            ["upstream", "state"],
            [(list(labels), count) for labels, count in self._connections().items()],
        )
        open_now = [([route], count) for route, count in sources.tunnels.open.items()]
        yield gauge("gateway_websockets_open", "Websockets open.", ["route"], open_now)
        yield _counter("gateway_websocket_closes", "Websockets that ended.", "reason", sources.tunnels.closes)
        yield _counter(
            "gateway_audit_notes_dropped", "Notes for the audit that found no room.", "kind", sources.notes.dropped
        )
        yield _counter("gateway_usage_events", "Uses of features.", "result", sources.usage.tally.by_result)
        yield gauge("gateway_usage_waiting", "Uses not delivered yet.", [], [([], sources.usage.waiting)])
        limited = sources.limiter.tally if sources.limiter is not None else Limited()
        yield _counter("gateway_rate_limited", "Requests that a limit refused.", "rule", limited.refused)
        yield _counter(
            "gateway_rate_limiter_unavailable", "Counts that Redis did not take.", "rule", limited.unavailable
        )
        yield from _revocations(sources.revocations)
        yield from _addresses(sources.upstreams.values())
        yield from _flags(sources.flags)

    def _connections(self) -> Mapping[tuple[str, str], int]:
        counts: Counter[tuple[str, str]] = Counter()
        for upstream in (*self._sources().upstreams.values(), *self._retired()):
            counts[upstream.name, "idle"] += upstream.idle
            counts[upstream.name, "busy"] += upstream.open - upstream.idle
            counts[upstream.name, "queued"] += upstream.queued
            counts[upstream.name, "upgraded"] += upstream.upgraded
        return counts


def _flags(teller: FlagTeller) -> Iterator[Metric]:
    tally, loaded_at = teller.tally, teller.provider.loaded_at
    ages: list[tuple[list[str], float]] = [] if loaded_at is None else [([], time.monotonic() - loaded_at)]
    yield gauge("gateway_flags_generation_age_seconds", "Since flags were last known to be current.", [], ages)
    evaluations = CounterMetricFamily("gateway_flags_evaluations", "Evaluations of a caller's flags.")
    evaluations.add_metric([], tally.evaluations)
    yield evaluations
    yield _counter("gateway_flags_loads", "Looks for definitions of flags.", "result", teller.provider.loads)
    yield _counter("gateway_flags_wrong_types", "Values not of the declared type.", "flag", tally.wrong_type)
    yield _counter("gateway_flags_left_out", "Flags without a form or room in the header.", "flag", tally.left_out)


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


def _breakers(breakers: Mapping[str, Breaker]) -> Iterator[Metric]:
    """What is not asked now because it was away a moment ago."""
    open_now = [([name], int(not breaker.closed)) for name, breaker in breakers.items()]
    yield gauge("gateway_breaker_open", "Whether it counts as away.", ["dependency"], open_now)
    trips = {name: breaker.trips for name, breaker in breakers.items()}
    yield _counter("gateway_breaker_trips", "How often it began to count as away.", "dependency", trips)


def _revocations(revocations: Revocations) -> Iterator[Metric]:
    """How well changes made elsewhere are heard of."""
    in_touch = int(revocations.whole)
    yield gauge("gateway_revocations_in_touch", "Whether other processes are heard of.", [], [([], in_touch)])
    lag = revocations.lag
    buckets = list(zip((*map(str, LAG_BOUNDS_S), "+Inf"), map(float, accumulate(lag.counts)), strict=True))
    family = HistogramMetricFamily("gateway_revocation_lag_seconds", "From a change elsewhere to its effect here.")
    family.add_metric([], buckets, lag.sum_s)
    yield family


def _outbox(tally: OutboxTally) -> Iterator[Metric]:
    """The table as it was when it was last looked at, and what became of this process' deliveries."""
    depths = [(str(topic), tally.depth.get(topic, Depth())) for topic in TOPICS]
    waiting_since = [([topic], depth.oldest_s + tally.age_s() if depth.pending else 0.0) for topic, depth in depths]
    pending = [([topic], depth.pending) for topic, depth in depths]
    yield gauge("gateway_outbox_pending", "Effects not delivered yet.", ["topic"], pending)
    yield gauge("gateway_outbox_oldest_seconds", "Age of the oldest of them.", ["topic"], waiting_since)
    dead = [([topic], depth.dead) for topic, depth in depths]
    yield gauge("gateway_outbox_dead", "Effects that were given up.", ["topic"], dead)
    family = CounterMetricFamily("gateway_outbox_deliveries", "Attempts to deliver.", labels=["topic", "result"])
    for labels, count in tally.deliveries.items():
        family.add_metric(list(labels), count)
    yield family


def _counter(name: str, help_text: str, label: str, counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value, count in counts.items():
        family.add_metric([str(value)], count)
    return family


def _provisioning_durations(tally: Tally) -> Metric:
    running, buckets = 0, []
    for bound, count in zip((*map(str, DURATION_BOUNDS_S), "+Inf"), tally.duration_counts, strict=True):
        running += count
        buckets.append((bound, float(running)))
    family = HistogramMetricFamily("gateway_provisioning_duration_seconds", "Provisionings.")
    family.add_metric([], buckets, tally.duration_sum_s)
    return family
