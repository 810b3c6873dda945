"""What became of reloads of the settings."""

import time
from collections.abc import Iterator
from typing import Literal

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.telemetry.metrics import gauge

Outcome = Literal["ok", "refused", "failed"]
"""`ok`: in force; `refused`: the settings are wrong; `failed`: they are right, but could not be put into force."""


class Reloads(Collector):
    """Counts reloads; the start counts as the first success, but not as a reload."""

    def __init__(self) -> None:
        self.outcomes: dict[Outcome, int] = {"ok": 0, "refused": 0, "failed": 0}
        self.last_ok = True
        self.last_ok_at = time.time()

    def ended(self, outcome: Outcome) -> None:
        """Count one."""
        self.outcomes[outcome] += 1
        self.last_ok = outcome == "ok"
        if self.last_ok:
            self.last_ok_at = time.time()

    def collect(self) -> Iterator[Metric]:
        """Render everything (prometheus_client's Collector)."""
        success = "gateway_config_last_reload_success"
        yield gauge(success, "1 when the latest settings are in force.", [], [([], int(self.last_ok))])
        yield gauge(f"{success}_timestamp_seconds", "When settings last came into force.", [], [([], self.last_ok_at)])
        reloads = CounterMetricFamily("gateway_config_reloads", "Reloads of the settings.", labels=["outcome"])
        for outcome, count in self.outcomes.items():
            reloads.add_metric([outcome], count)
        yield reloads
