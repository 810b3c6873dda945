"""What operators are told of all workers together: one /metrics, one /readyz."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.telemetry.admin import admin_routes, shown
from gateway.telemetry.collectors import ACROSS_WORKERS
from gateway.telemetry.merged import Ledger
from gateway.telemetry.metrics import gauge
from gateway.workers.process import Phase, Worker


class Overview(Collector):
    """Asks the workers, and answers for them.

    Attributes:
        ledger: What they have told.
    """

    def __init__(self, workers: Mapping[int, Worker]) -> None:
        """Begin.

        Args:
            workers: The latest worker of each place; read whenever somebody asks.
        """
        self._workers = workers
        self._restarts = {"exit": 0, "signal": 0}
        self.ledger = Ledger(ACROSS_WORKERS)

    def restarted(self, ending: str) -> None:
        """Count a worker that ended and is replaced; `ending` as `Worker.run` says it."""
        self._restarts[ending.partition(" ")[0]] += 1

    def collect(self) -> Iterator[Metric]:
        """Tell of the workers as such (prometheus_client's Collector)."""
        phases = [worker.phase for worker in self._workers.values()]
        counts = [([phase.value], float(phases.count(phase))) for phase in Phase]
        yield gauge("gateway_workers", "Workers.", ["phase"], counts)
        restarts = CounterMetricFamily("gateway_worker_restarts", "Workers that ended unasked.", labels=["reason"])
        for reason, count in self._restarts.items():
            restarts.add_metric([reason], count)
        yield restarts

    def application(self) -> web.Application:
        """Build the admin application of all workers."""
        merged = CollectorRegistry()
        merged.register(self.ledger)
        merged.register(self)

        async def registry() -> CollectorRegistry:
            await self._asked("samples")  # answers go into the ledger; who is late is shown with earlier figures
            return merged

        return admin_routes(registry, self._readiness)

    async def _readiness(self) -> tuple[bool, dict[str, Any]]:
        """Ready as soon as one worker is: a worker that starts again must not take the others out of service."""
        answers = [checks for checks in await self._asked("checks") if checks is not None]
        ready = [checks for checks in answers if all(checks.values())]
        # Of a worker that is ready, if there is one: what holds there holds for requests.
        told: dict[str, bool] = next(iter(ready or answers), {})
        return bool(ready), {"checks": shown(told), "workers": {"ready": len(ready), "of": len(self._workers)}}

    async def _asked(self, what: str) -> list[Any]:
        """Ask all who listen at once; None for those who do not answer in time."""
        asked = [worker for worker in self._workers.values() if worker.phase in {Phase.LISTENING, Phase.DRAINING}]
        if what == "checks":
            asked = [worker for worker in asked if worker.phase is Phase.LISTENING]
        answers = await asyncio.gather(*(worker.ask(what) for worker in asked))
        return [None if answer is None else answer[what] for answer in answers]
