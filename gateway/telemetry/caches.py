"""What the caches are asked for, and with what success: the near one, and what replicas remember together in Redis."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from gateway.actors.beliefs import LookUps
from gateway.shared_state.errors import REASONS
from gateway.shared_state.facts import API_TOKENS, STANDINGS
from gateway.shared_state.tier import RESULTS, SharedTier


def cache_metrics(near: LookUps, shared: SharedTier | None) -> Iterator[Metric]:
    """Render the counts; look-ups in Redis where there is one."""
    requests = CounterMetricFamily("gateway_cache_requests", "Look-ups in caches.", labels=["tier", "kind", "result"])
    for result, count in (("hit", near.hits), ("miss", near.misses), ("stale", near.stale)):
        requests.add_metric(["near", "caller", result], count)
    for kind in (STANDINGS.name, API_TOKENS.name) if shared is not None else ():
        for result in RESULTS:
            requests.add_metric(["redis", kind, result], shared.results[kind, result] if shared is not None else 0)
    yield requests
    failures = CounterMetricFamily("gateway_redis_failures", "Questions to Redis that failed.", labels=["reason"])
    for reason in REASONS:
        failures.add_metric([reason], shared.failures[reason] if shared is not None else 0)
    yield failures
    yield CounterMetricFamily(
        "gateway_cache_writes_dropped",
        "Values that did not reach Redis: it was away, or they were too many.",
        value=shared.dropped if shared is not None else 0,
    )
