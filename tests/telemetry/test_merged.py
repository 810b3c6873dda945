"""Metrics of several workers as those of one gateway."""

import json
import math
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.telemetry.merged import Family, Ledger, families_of


class Told(Collector):
    """What one worker would render."""

    def __init__(self, requests: dict[str, int], *, age: float = 0.0, open_now: float = 0.0) -> None:
        self.requests = requests
        self.age = age
        self.open_now = open_now

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("requests", "Requests.", labels=["route"])
        durations = HistogramMetricFamily("durations", "Durations.", labels=["route"])
        for route, count in self.requests.items():
            requests.add_metric([route], count)
            durations.add_metric([route], [("0.1", count), ("+Inf", count)], count * 0.05)
        yield requests
        yield durations
        yield GaugeMetricFamily("age", "Age.", value=self.age)
        yield GaugeMetricFamily("open", "Open.", value=self.open_now)


def families(requests: dict[str, int], **gauges: float) -> list[Family]:
    """As they arrive over the channel."""
    registry = CollectorRegistry()
    registry.register(Told(requests, **gauges))
    told: list[Family] = json.loads(json.dumps(families_of(registry)))
    return told


def ledger() -> Ledger:
    return Ledger({"age": max})


def shown(ledger: Ledger) -> dict[tuple[str, str], float]:
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for metric in ledger.collect()
        for sample in metric.samples
    }


def test_counters_histograms_and_gauges_add_up() -> None:
    both = ledger()
    both.learn(0, families({"/a": 3}, open_now=2))
    both.learn(1, families({"/a": 4, "/b": 1}, open_now=5))

    values = shown(both)
    assert (values["requests_total", "/a"], values["requests_total", "/b"]) == (7, 1)
    assert (values["durations_bucket", "/a,0.1"], values["durations_count", "/a"]) == (7, 7)
    assert math.isclose(values["durations_sum", "/a"], 0.35)
    assert values["open", ""] == 7


def test_a_gauge_with_a_rule_of_its_own_follows_it() -> None:
    both = ledger()
    both.learn(0, families({}, age=12.0))
    both.learn(1, families({}, age=math.inf))

    assert shown(both)["age", ""] == math.inf


def test_what_an_ended_worker_counted_stays_and_what_it_was_goes() -> None:
    both = ledger()
    both.learn(0, families({"/a": 3}, open_now=2, age=9.0))
    both.learn(1, families({"/a": 4}, open_now=5, age=1.0))
    both.retire(0)
    both.learn(0, families({"/a": 1}))

    values = shown(both)
    assert (values["requests_total", "/a"], values["open", ""], values["age", ""]) == (8, 5, 1.0)


def test_families_are_shown_with_kind_and_help_also_without_samples() -> None:
    one = ledger()
    one.learn(0, families({}))

    assert [(metric.name, metric.type, metric.documentation) for metric in one.collect()] == [
        ("requests", "counter", "Requests."),
        ("durations", "histogram", "Durations."),
        ("age", "gauge", "Age."),
        ("open", "gauge", "Open."),
    ]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["counts", "tells", "ends"]), st.integers(1, 9)), max_size=60)
)
def test_counters_never_go_down_and_lose_only_what_was_never_told(steps: list[tuple[int, str, int]]) -> None:
    all_workers, counted, told, before = ledger(), [0, 0, 0], 0, 0.0
    untold = [0, 0, 0]
    for worker, step, number in steps:
        if step == "counts":
            counted[worker] += number
            untold[worker] += number
        elif step == "tells":
            all_workers.learn(worker, families({"/a": counted[worker]}))
            told += untold[worker]
            untold[worker] = 0
        else:
            all_workers.retire(worker)
            counted[worker] = untold[worker] = 0
        now = shown(all_workers).get(("requests_total", "/a"), 0.0)

        assert now == told >= before
        before = now
