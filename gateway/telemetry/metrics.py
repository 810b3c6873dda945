"""Counters of the request's way, kept as plain integers and read only when /metrics is asked.

prometheus-client's own children cost 1–2 µs an increment; a dictionary entry costs a tenth of it. Labels come from
closed sets: route patterns of the settings, methods HTTP defines, status codes, reason words of our own.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})

NO_ROUTE = "none"
"""Label of requests refused before a route was found."""


class _Count:
    """A number to be found once and counted up in place."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0


class _Observed:
    """Observations under one label value: how many in each bucket, and their sum."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0


class Histogram:
    """Observations in seconds, per label value."""

    __slots__ = ("_by_label",)

    def __init__(self) -> None:
        self._by_label: dict[str, _Observed] = {}

    def observe(self, label: str, seconds: float) -> None:
        """Count one observation."""
        observed = self._by_label.get(label)
        if observed is None:
            observed = self._by_label[label] = _Observed()
        observed.counts[bisect_left(BUCKETS_S, seconds)] += 1
        observed.sum_s += seconds

    def family(self, name: str, help_text: str, label: str) -> Metric:
        """Render for the metrics endpoint."""
        family = HistogramMetricFamily(name, help_text, labels=[label])
        for value, observed in self._by_label.items():
            running, buckets = 0, []
            for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), observed.counts, strict=True):
                running += count
                buckets.append((bound, running))
            family.add_metric([value], buckets, observed.sum_s)
        return family


class Metrics:
    """Everything counted on the request's way; a Collector of prometheus_client by its shape."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], _Count] = {}
        self._decisions: dict[tuple[str, str, str], _Count] = {}
        self._upstream_errors: dict[tuple[str, str], _Count] = {}
        self.claims_dropped = 0
        self.durations = Histogram()
        self.upstream_durations = Histogram()

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one finished request."""
        key = (route, method if method in _METHODS else "other", status)
        count = self._requests.get(key)
        if count is None:
            count = self._requests[key] = _Count()
        count.n += 1
        self.durations.observe(route, seconds)

    def decided(self, kind: str, outcome: str, reason: str) -> None:
        """Count one decision about a credential; `outcome` is allowed, anonymous, denied or unavailable."""
        key = (kind, outcome, reason)
        count = self._decisions.get(key)
        if count is None:
            count = self._decisions[key] = _Count()
        count.n += 1

    def upstream_failed(self, upstream: str, reason: str) -> None:
        """Count one exchange that broke."""
        self._upstream_errors.setdefault((upstream, reason), _Count()).n += 1

    def collect(self) -> Iterator[Metric]:
        """Render everything (prometheus_client's Collector)."""
        yield _counters("gateway_requests", "Requests answered.", ["route", "method", "code"], self._requests.items())
        yield self.durations.family("gateway_request_duration_seconds", "From head to last byte.", "route")
        yield _counters(
            "gateway_auth_decisions",
            "Decisions about credentials.",
            ["kind", "outcome", "reason"],
            self._decisions.items(),
        )
        yield CounterMetricFamily(
            "gateway_identity_claims_dropped",
            "Client fields that named an identity, or posed as a proxy's.",
            value=self.claims_dropped,
        )
        yield self.upstream_durations.family(
            "gateway_upstream_request_duration_seconds", "From head sent to answer complete.", "upstream"
        )
        yield _counters(
            "gateway_upstream_errors", "Exchanges that broke.", ["upstream", "reason"], self._upstream_errors.items()
        )


def _counters(
    name: str, help_text: str, labels: list[str], values: Iterable[tuple[tuple[object, ...], _Count]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help_text, labels=labels)
    for key, count in values:
        family.add_metric([str(part) for part in key], count.n)
    return family


def gauge(name: str, help_text: str, labels: list[str], values: Iterable[tuple[list[str], float]]) -> Metric:
    """Render one gauge."""
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family
