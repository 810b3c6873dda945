"""One topic, worked off by itself: takes up what is due, delivers it, notes what became of it."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import asyncpg
import structlog

from provisioning.background import end_tasks
from provisioning.errors import DatabaseUnavailable
from provisioning.outbox.backoff import delay_s
from provisioning.outbox.effects import AWAY, Delivery, DeliveryFailed, Reason
from provisioning.outbox.queue import Queue, Taken
from provisioning.outbox.receiver import Receiver, within
from provisioning.outbox.tally import Tally

LEASE_BEYOND_DEADLINE_S = 5.0
"""For noting what became of a delivery. Until then nobody else tries, also after a SIGKILL."""
PATIENCE = 10
"""Failures in a row after which attempts come no faster than one in `REST_S`."""
REST_S = 1.0
OUTAGE = 3
"""Failures in a row that were an outage: when one gets through again, all that waits because of it is tried."""
_NOTE_AGAIN_S = 0.25
_log = structlog.get_logger(__name__)


class Courier:
    """Delivers the effects of one topic, one call at a time; a receiver that hangs holds up nobody else's.

    Attributes:
        topic: Which.
    """

    def __init__(self, queue: Queue, receiver: Receiver, tally: Tally, *, give_up_after_s: float) -> None:
        """Settle who delivers.

        Args:
            queue: Where effects wait.
            receiver: Of this topic.
            tally: Counts.
            give_up_after_s: Seconds since the first attempt after which a row that fails is dead.
        """
        self.topic = receiver.topic
        self._queue = queue
        self._receiver = receiver
        self._tally = tally
        self._give_up_after_s = give_up_after_s
        self._lease_s = receiver.deadline_s + LEASE_BEYOND_DEADLINE_S
        self._awake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._failures = 0  # in a row, of the kind that would meet any delivery
        self._rest_until = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; what waits already is due."""
        self._awake.set()
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Look again: something may be due."""
        self._awake.set()

    async def close(self, wait_s: float) -> None:
        """Take up nothing more, let what is under way come to its end for `wait_s` at most, then end it."""
        self._stopping.set()
        self._awake.set()
        task, self._task = self._task, None
        if task is None:
            return
        await asyncio.wait({task}, timeout=wait_s)
        await end_tasks(task)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            await self._awake.wait()
            self._awake.clear()
            try:
                await self._work_off()
            except DatabaseUnavailable:
                pass  # counted where it happened; whoever wakes us next begins again
            except Exception as error:  # noqa: BLE001 - whatever it was, the rows wait, and a poll wakes us again
                _log.error("outbox_failed", topic=self.topic, reason=type(error).__name__)

    async def _work_off(self) -> None:
        while not self._stopping.is_set():
            await self._rest()
            if self._stopping.is_set():
                return
            noted_by = asyncio.get_running_loop().time() + self._lease_s  # before asking: the lease begins in between
            taken = await self._queue.take(self.topic, self._receiver.most, self._lease_s)
            if not taken.deliveries:
                return
            await self._deliver(taken, noted_by)

    async def _rest(self) -> None:
        """Wait out what the receiver asked for, and some patience; a stop ends it."""
        wait_s = self._rest_until - asyncio.get_running_loop().time()
        if wait_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()

    async def _deliver(self, taken: Taken, noted_by: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            failure = await self._try(taken.deliveries)
        except asyncio.CancelledError:
            await asyncio.shield(self._let_go(taken))
            raise
        if failure is not None and failure.reason == "rejected" and len(taken.deliveries) > 1:
            # One of them spoils the rest: each has to stand for itself.
            for delivery in taken.deliveries:
                alone = Taken(taken.name, (delivery,))
                if loop.time() + self._receiver.deadline_s > noted_by:
                    await self._queue.release(taken, [delivery.id])
                    continue
                await self._note(alone, await self._try(alone.deliveries), noted_by)
            return
        await self._note(taken, failure, noted_by)

    async def _try(self, deliveries: Sequence[Delivery]) -> DeliveryFailed | None:
        try:
            await within(self._receiver.deadline_s, self._receiver, deliveries)
        except DeliveryFailed as failure:
            return failure
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a mistake in one receiver must not end its courier, nor lose a row
            _log.error("outbox_receiver_broke", topic=self.topic, kind=deliveries[0].kind, error=type(error).__name__)
            return DeliveryFailed("error")
        return None

    async def _note(self, taken: Taken, failure: DeliveryFailed | None, noted_by: float) -> None:
        """Write down what became of a call, while the lease lasts: what is not noted will be delivered again."""
        loop = asyncio.get_running_loop()
        recovered = self._judge(failure)
        while True:
            try:
                if failure is None:
                    await self._note_delivered(taken)
                else:
                    await self._note_failed(taken, failure)
                break
            except DatabaseUnavailable:
                if loop.time() + _NOTE_AGAIN_S >= noted_by:
                    raise
                await asyncio.sleep(_NOTE_AGAIN_S)
        if recovered:
            _log.info("outbox_receiver_back", topic=self.topic)
            await self._queue.hurry(self.topic)

    def _judge(self, failure: DeliveryFailed | None) -> bool:
        """Learn from an outcome how to go on; true when it ends an outage."""
        if failure is None or failure.reason not in AWAY:
            recovered, self._failures, self._rest_until = failure is None and self._failures >= OUTAGE, 0, 0.0
            return recovered
        self._failures += 1
        rest_s = failure.retry_after_s or 0.0
        if self._failures >= PATIENCE:
            rest_s = max(rest_s, REST_S)
        self._rest_until = asyncio.get_running_loop().time() + rest_s
        if self._failures == OUTAGE:
            _log.warning("outbox_receiver_away", topic=self.topic, reason=failure.reason)
        return False

    async def _note_delivered(self, taken: Taken) -> None:
        await self._queue.delivered(taken, [delivery.id for delivery in taken.deliveries])
        self._tally.deliveries[self.topic, "delivered"] += len(taken.deliveries)

    async def _note_failed(self, taken: Taken, failure: DeliveryFailed) -> None:
        for delivery in taken.deliveries:
            delay = delay_s(delivery.attempts, failure.retry_after_s)
            state = await self._queue.failed(taken, delivery, failure.reason, delay, self._give_up_after_s)
            if state == "dead":
                self._tally.deliveries[self.topic, "dead"] += 1
                self._tell_dead(delivery, failure.reason)
            elif state is not None:
                self._tally.deliveries[self.topic, "failed"] += 1
                asyncio.get_running_loop().call_later(delay, self.wake)

    def _tell_dead(self, delivery: Delivery, reason: Reason) -> None:
        _log.error("outbox_gave_up", topic=self.topic, kind=delivery.kind, id=delivery.id, reason=reason)

    async def _let_go(self, taken: Taken) -> None:
        """Whoever was cut short does not know what became of it: somebody else may try at once."""
        with suppress(DatabaseUnavailable, asyncpg.PostgresError):
            await self._queue.release(taken, [delivery.id for delivery in taken.deliveries])
