"""Metrics of several workers as those of one gateway. Counters and histograms add up and never go down. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

Family = dict[str, Any]
"""`name`, `help`, `type` and `samples`: lists of name, labels and value. Fit for JSON that knows Infinity."""
_SampleKey = tuple[str, tuple[tuple[str, str], ...]]
_LASTING = frozenset({"counter", "histogram"})


def families_of(registry: CollectorRegistry) -> list[Family]:
    """Read everything a registry would render."""
    return [
        {
            "name": metric.name,
            "help": metric.documentation,
            "type": metric.type,
            "samples": [[sample.name, sample.labels, sample.value] for sample in metric.samples],
        }
        for metric in registry.collect()
    ]


class Ledger(Collector):
    """Remembers what each worker told last, and what ended workers have counted."""

    def __init__(self, rules: Mapping[str, Callable[[float, float], float]]) -> None:
        """Begin with nothing.

        Args:
            rules: How two values of a gauge become one, by its name; others add up.
        """
        self._rules = rules
        self._kinds: dict[str, Family] = {}
        self._ended: dict[str, dict[_SampleKey, float]] = {}
        self._latest: dict[int, list[Family]] = {}

    def learn(self, worker: int, families: list[Family]) -> None:
        """Note what a worker tells now, in place of what it told before."""
        self._latest[worker] = families
        for family in families:
            self._kinds.setdefault(family["name"], {**family, "samples": []})

    def retire(self, worker: int) -> None:
        """A worker ended: what it counted stays, as far as it told; what it was (its gauges) goes."""
        for family in self._latest.pop(worker, []):
            if family["type"] in _LASTING:
                _add(self._ended.setdefault(family["name"], {}), family["samples"], _sum)

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before workers tell (prometheus_client's Collector)."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Render everything (prometheus_client's Collector)."""
        merged = {name: dict(self._ended.get(name, {})) for name in self._kinds}
        for families in self._latest.values():
            for family in families:
                name = family["name"]
                _add(merged[name], family["samples"], self._rules.get(name, _sum))
        for name, kind in self._kinds.items():
            metric = Metric(name, kind["help"], kind["type"])
            for (sample, labels), value in merged[name].items():
                metric.add_sample(sample, dict(labels), value)
            yield metric


def _add(values: dict[_SampleKey, float], samples: Iterable[list[Any]], rule: Callable[[float, float], float]) -> None:
    for name, labels, value in samples:
        key = (name, tuple(labels.items()))
        values[key] = rule(values[key], value) if key in values else value


def _sum(one: float, other: float) -> float:
    return one + other
