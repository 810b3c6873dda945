"""The bus between processes, through Redis: who listens, who tells, and what is done when one cannot.

A listener counts as in touch while it hears itself at least every LOST_S: everybody gives a sign of life each second.
What others say is none, and what nobody of ours said even less: while Redis takes nothing from us, whoever can write to
it could keep a channel busy on which no change travels. What was told meanwhile is read from the log at every new
subscription; where the log does not tell it without a gap, nothing is believed any more that was.
"""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from gateway.revocation.changes import AnythingChanged, Change, Message
from gateway.revocation.channel import Channel, Heard, Missed, heard_of
from gateway.revocation.endings import Endings
from gateway.revocation.envelope import Envelope, Forged
from gateway.revocation.lag import Lag
from gateway.revocation.recent import RecentChanges
from gateway.revocation.revocations import Untold
from gateway.shared_state.errors import RedisUnavailable
from provisioning.background import end_tasks

if TYPE_CHECKING:
    from gateway.shared_state.client import SharedRedis

BEAT_S = 1.0
LOST_S = 3.0
"""Without a word of its own for so long, a listener is out of touch."""
_AGAIN_S = 0.25
_FIRST_S = 0.5
_LAST_S = 0.5
_SENDERS = 10_000
_log = structlog.get_logger()


class Bus:
    """What `Revocations` says, for several processes.

    Attributes:
        recent: Changes heard of, by version.
        lag: How late changes of others were heard of.
        forged: Messages that were not ours.
    """

    def __init__(
        self, shared: "SharedRedis", envelope: Envelope, endings: Endings, clock: Callable[[], float] = time.time
    ) -> None:
        """Prepare; `start` begins.

        Args:
            shared: The way to Redis.
            envelope: Seals what is told.
            endings: Applies changes.
            clock: Unix seconds.
        """
        self._channel = Channel(shared, envelope.place)
        self._envelope = envelope
        self._endings = endings
        self._clock = clock
        self._untold = Untold(secrets.token_hex(8), clock)
        self._something = asyncio.Event()
        self._telling = asyncio.Lock()
        self._in_touch = asyncio.Event()
        self._epoch = b""
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._beats_from = 0
        self._heard_itself = 0, 0.0  # the number of its last message that came, and when, monotonic
        self._last = 0, b""  # the last change's version, and how it was sealed
        self._tasks: list[asyncio.Task[None]] = []
        self.recent = RecentChanges()
        self.lag = Lag()
        self.forged = 0

    @property
    def whole(self) -> bool:
        """Whether everything told by others is heard now."""
        return self._in_touch.is_set()

    async def start(self) -> None:
        """Listen and tell; waits a moment for the first subscription, and goes on without."""
        self._endings.follow(self, in_touch=False)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(work()) for work in (self._listen_on_and_on, self._tell_on_and_on, self._beat)]
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_S):
                await self._in_touch.wait()

    async def close(self) -> None:
        """Tell what is left, for a moment, and end."""
        with suppress(TimeoutError, RedisUnavailable):
            async with asyncio.timeout(_LAST_S):
                await self._tell_all()
        await end_tasks(*self._tasks)

    def tell(self, *changes: Change) -> None:
        """Apply changes here, at once, and tell the others; never raises, and never waits."""
        for change in changes:
            self._endings.apply(change)
        self.recent.foresee(changes)
        self._untold.add(*changes)
        self._something.set()

    # Telling

    async def _tell_on_and_on(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            try:
                await self._tell_all()
            except Exception as error:  # noqa: BLE001 - as in `_listen_on_and_on`
                if not isinstance(error, RedisUnavailable):
                    _log.error("a change could not be told", exc_info=error)
                await asyncio.sleep(_AGAIN_S)
                self._something.set()

    async def _tell_all(self) -> None:
        async with self._telling:  # one message after the other: who hears a later one first takes the earlier for old
            while self._untold:
                message = self._untold.message()
                try:
                    await self._channel.tell(self._envelope.seal(message), logged=True)
                except BaseException:
                    self._untold.put_back(message)
                    raise

    async def _beat(self) -> None:
        while True:
            with suppress(Exception):  # as above; without it the others do not depend on this one
                await self._channel.tell(self._envelope.seal(self._untold.beat()), logged=False)
            await asyncio.sleep(BEAT_S)

    # Listening

    async def _listen_on_and_on(self) -> None:
        while True:
            subscription = self._channel.subscription()
            try:
                await self._listen(subscription)
            except Exception as error:  # noqa: BLE001 - whatever redis-py raises: somebody must go on listening
                self._lose_touch(type(error).__name__)
            finally:
                with suppress(Exception):
                    await subscription.aclose()
            await asyncio.sleep(_AGAIN_S)

    async def _listen(self, subscription: Any) -> None:
        """Listen until nothing is heard any more."""
        async with asyncio.timeout(LOST_S):
            await subscription.subscribe(self._channel.name)
        self._heard_itself = self._heard_itself[0], time.monotonic()
        while time.monotonic() - self._heard_itself[1] <= LOST_S:
            message = await subscription.get_message(timeout=BEAT_S)
            if message is not None and message["type"] == "subscribe":
                await self._catch_up()
            elif message is not None and message["type"] == "message":
                await self._take(message["data"])
        raise TimeoutError

    async def _take(self, data: bytes) -> None:
        """Take what came over the channel."""
        heard = heard_of(data)
        message = self._opened(heard.sealed) if heard is not None else None
        if heard is None or message is None:
            return
        if message.sender == self._untold.sender and message.number > self._heard_itself[0]:  # not when sent again
            self._heard_itself = message.number, time.monotonic()
        if heard.epoch != self._epoch:
            await self._catch_up()
            return
        is_new = message.number > self._numbers.get(message.sender, 0)
        expected = self.recent.version + bool(message.changes)
        if heard.version > expected:
            await self._catch_up()
        elif message.changes and heard.version == expected:
            self._apply(heard.version, message, heard.sealed)
        elif is_new and self._is_behind(heard, message):
            self._believe_nothing(heard.version)
            if message.changes:  # what is open ends as well, whatever came with this version before
                self._apply(heard.version, message, heard.sealed)

    def _is_behind(self, heard: Heard, message: Message) -> bool:
        """Tell whether the counter went back: a replica that knew less became the master."""
        if message.changes:
            return heard.version <= self.recent.version
        own = message.sender == self._untold.sender and message.number > self._beats_from
        return own and heard.version < self.recent.version

    async def _catch_up(self) -> None:
        """Hear what was told since, at a new subscription or after a gap."""
        is_first, since = not self._epoch, self.recent.version if self._epoch else 0
        missed = await self._channel.missed(since)
        self._beats_from = self._untold.number
        messages = tuple(one for one in missed.messages if one[0] > since)
        versions = [version for version, _ in messages]
        gapless = self._goes_on(missed) and versions == list(range(since + 1, missed.version + 1))
        if not gapless:
            self._epoch, tail = missed.epoch, _gapless_tail(versions, missed.version)
            self._believe_nothing(tail, is_first=is_first)
            messages = tuple(one for one in messages if one[0] > tail)
        for version, sealed in messages:
            message = self._opened(sealed)
            if message is None:
                self._believe_nothing(version)
            elif is_first:  # nothing was believed yet: it counts for what others read and left in Redis
                self._numbers[message.sender] = message.number
                self._hear(version, message, sealed)
            else:
                self._apply(version, message, sealed)
        self._gain_touch(missed=not gapless)

    def _goes_on(self, missed: Missed) -> bool:
        """Tell whether the log has what was heard of last, and not, after a failover, another change in its place."""
        version, sealed = self._last
        told = dict(missed.messages).get(version, sealed)  # it is left out an hour later
        return missed.epoch == self._epoch and missed.version >= self.recent.version and told == sealed

    def _apply(self, version: int, message: Message, sealed: bytes) -> None:
        """Apply what another one told; one's own is applied already."""
        if message.number > self._numbers.get(message.sender, 0):
            self._numbers[message.sender] = message.number
            self._numbers.move_to_end(message.sender)
            if len(self._numbers) > _SENDERS:
                self._numbers.popitem(last=False)
            if message.sender == self._untold.sender:
                self.recent.came_true(message.changes)
            else:
                for change in message.changes:
                    self._endings.apply(change)
                self.lag.observe(self._clock() - message.at)
        self._hear(version, message, sealed)

    def _hear(self, version: int, message: Message, sealed: bytes) -> None:
        self.recent.hear(version, message.changes)
        self._last = version, sealed

    def _opened(self, sealed: bytes) -> Message | None:
        """Open it; None: not ours, or of a form that is not ours, after which nothing is believed."""
        try:
            message = self._envelope.open(sealed)
        except Forged:
            self.forged += 1
            return None
        if message is None:
            self._endings.apply(AnythingChanged())
        return message

    def _believe_nothing(self, version: int, *, is_first: bool = False) -> None:
        self.recent.start(version)
        if not is_first:
            _log.warning("revocations were missed: nothing is believed that was")
        self._endings.apply(AnythingChanged())

    def _lose_touch(self, cause: str) -> None:
        if self.whole:
            _log.warning("out of touch with other processes", cause=cause)
            self._in_touch.clear()
            self._endings.lose_touch(self)

    def _gain_touch(self, *, missed: bool) -> None:
        if not self.whole:
            _log.info("in touch with other processes")
            self._in_touch.set()
            self._endings.regain_touch(self, missed=missed)


def _gapless_tail(versions: list[int], last: int) -> int:
    """Give the version after which the log tells everything up to the last."""
    tail = last
    for version in reversed(versions):
        if version != tail:
            break
        tail -= 1
    return tail
