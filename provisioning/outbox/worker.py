"""The outbox of one process: a courier for each receiver, what wakes them, and what looks after the table."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import asyncpg
import structlog

from provisioning.background import end_tasks
from provisioning.errors import DatabaseUnavailable
from provisioning.outbox.courier import Courier
from provisioning.outbox.listener import Listener
from provisioning.outbox.queue import Queue
from provisioning.outbox.receiver import Receiver
from provisioning.outbox.tally import Tally

POLL_EVERY_S = 2.0
LOOK_EVERY_S = 10.0
PRUNE_EVERY_S = 600.0
CANCELLED_WITHIN_S = 1.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """How long.

    Attributes:
        give_up_after_s: Since the first attempt; then a row that fails once more is dead.
        keep_delivered_s: Rows of what was delivered; until then their keys do not come again.
        poll_every_s: Between two looks for what is due, beside being told.
        look_every_s: Between two counts of what waits.
        prune_every_s: Between two deletions, about.
    """

    give_up_after_s: float = 3 * 86400.0
    keep_delivered_s: float = 7 * 86400.0
    poll_every_s: float = POLL_EVERY_S
    look_every_s: float = LOOK_EVERY_S
    prune_every_s: float = PRUNE_EVERY_S


class Outbox:
    """Delivers what was written down. Without receivers it only counts what waits.

    Attributes:
        tally: For metrics.
    """

    def __init__(self, queue: Queue, receivers: Sequence[Receiver], listen_url: str | None, rules: Rules) -> None:
        """Settle who delivers.

        Args:
            queue: Where effects wait.
            receivers: One of each topic that is delivered here.
            listen_url: A direct DSN to be notified through; None: polling alone.
            rules: How long.
        """
        self.tally = Tally()
        self._queue = queue
        self._rules = rules
        self._couriers = {
            receiver.topic: Courier(queue, receiver, self.tally, give_up_after_s=rules.give_up_after_s)
            for receiver in receivers
        }
        self._longest_s = max((receiver.deadline_s for receiver in receivers), default=0.0)
        self._listener = Listener(listen_url, self._heard, self._wake_all) if listen_url and receivers else None
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    @property
    def topics(self) -> tuple[str, ...]:
        """What is delivered here."""
        return tuple(self._couriers)

    def start(self) -> None:
        """Begin."""
        rounds = [self._every(self._rules.look_every_s, self._look, "look", at_once=True)]
        if self._couriers:
            rounds.append(self._every(self._rules.poll_every_s, self._poll, "poll"))
            rounds.append(self._every(self._rules.prune_every_s, self._prune, "prune"))
        self._tasks = tuple(asyncio.create_task(each) for each in rounds)
        for courier in self._couriers.values():
            courier.start()
        if self._listener is not None:
            self._listener.start()

    async def close(self, wait_s: float | None = None) -> None:
        """Take up nothing more, and let what is under way come to its end.

        Args:
            wait_s: For so long at most; None: for as long as the slowest receiver may take.
        """
        await end_tasks(*self._tasks, quietly=True)
        self._tasks = ()
        if self._listener is not None:
            await self._listener.close()
        patience = self._longest_s + CANCELLED_WITHIN_S if wait_s is None else wait_s
        await asyncio.gather(*(courier.close(patience) for courier in self._couriers.values()))

    def _heard(self, topic: str) -> None:
        for name, courier in self._couriers.items():
            if name == topic:
                courier.wake()

    def _wake_all(self) -> None:
        for courier in self._couriers.values():
            courier.wake()

    async def _poll(self) -> None:
        for topic in await self._queue.due(self._couriers.keys()):
            self._couriers[topic].wake()

    async def _look(self) -> None:
        self.tally.looked(await self._queue.depth())

    async def _prune(self) -> None:
        if pruned := await self._queue.prune(self._rules.keep_delivered_s):
            _log.info("outbox_pruned", rows=pruned)

    async def _every(
        self, seconds: float, turn: Callable[[], Awaitable[None]], task: str, *, at_once: bool = False
    ) -> None:
        """Do it again and again, whatever PostgreSQL says; not in step with other processes."""
        while True:
            if not at_once:
                await asyncio.sleep(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            at_once = False
            with suppress(DatabaseUnavailable):  # counted where it happened
                try:
                    await turn()
                except asyncpg.PostgresError as error:
                    _log.error("outbox_upkeep_failed", task=task, reason=type(error).__name__)
