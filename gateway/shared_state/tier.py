"""What replicas remember together: between the near cache of each and PostgreSQL, one round trip to Redis.

Redis is believed for as long as a reading of our own would be, counted from the moment when the other replica asked the
records; older ones count while PostgreSQL is away, and none after a change of what they are about. Whatever is not our
own writing is a miss. Nothing waits for a write.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gateway.shared_state.errors import RedisUnavailable
from gateway.shared_state.facts import FactKind, Reading
from gateway.shared_state.freshness import Freshness
from gateway.shared_state.values import SealedValues
from gateway.shared_state.writer import Write, Writer

if TYPE_CHECKING:
    from gateway.shared_state.client import SharedRedis

SKEW_S = 1.0
"""How far the clocks of replicas may be apart."""
MOST_BYTES = 64 * 1024
MOST_FORGOTTEN = 100_000
RESULTS = ("hit", "stale", "miss", "forged", "unavailable")
"""Of a look-up: counts like our own reading; counts while PostgreSQL is away; nothing there; not ours; no Redis."""
F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Recalled(Generic[F]):
    """What another replica read, or this one before.

    Attributes:
        age_s: Since it asked the records.
        fresh: It counts like a reading of our own; else only while PostgreSQL is away.
    """

    fact: F
    age_s: float
    fresh: bool


class SharedTier:
    """Finds and keeps facts in Redis.

    Attributes:
        results: Look-ups by kind and one of `RESULTS`.
        freshness: Whether what was read is still so.
    """

    def __init__(
        self,
        redis: "SharedRedis",
        cache: Any,
        values: SealedValues,
        freshness: Freshness,
        *,
        kept_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take what it is made of; see `opened`.

        Args:
            redis: The way there.
            cache: aiocache, on the same client.
            values: Names and seals.
            freshness: Whether what was read is still so.
            kept_s: How long a reading counts for anything, `cache.stale_if_error`.
            clock: Unix seconds.
        """
        self._redis = redis
        self._cache = cache
        self._values = values
        self.freshness = freshness
        self._kept_s = kept_s
        self._clock = clock
        self._writer = Writer(self._write)
        self._forgotten: OrderedDict[str, float] = OrderedDict()
        self._forgotten_before = 0.0
        self.results: Counter[tuple[str, str]] = Counter()

    @classmethod
    async def opened(
        cls, redis: "SharedRedis", values: SealedValues, freshness: Freshness, *, kept_s: float
    ) -> "SharedTier":
        """Read the library off the loop, and set it on the client that is there."""
        library = await asyncio.to_thread(import_module, "gateway.shared_state.library")
        cache = await asyncio.to_thread(library.cache_on, redis.client)
        return cls(redis, cache, values, freshness, kept_s=kept_s)

    async def find(self, kind: FactKind[F], *about: bytes | str | None, fresh_s: float) -> Recalled[F] | None:
        """Look for a fact; None: there is none that counts for anything. One round trip.

        Args:
            kind: What is looked for.
            about: Whom or what.
            fresh_s: How long a reading counts like one of our own.
        """
        name = self._values.name(kind.name, *about)
        try:
            sealed = await self._redis.run(lambda _: self._cache.get(name))
        except RedisUnavailable:
            self.results[kind.name, "unavailable"] += 1
            return None
        if sealed is None:
            self.results[kind.name, "miss"] += 1
            return None
        reading = self._opened(kind, name, sealed)
        if reading is None:
            self.results[kind.name, "forged"] += 1
            return None
        return self._judged(kind, reading, fresh_s)

    def keep(
        self, kind: FactKind[F], *about: bytes | str | None, reading: Reading[F], until: float | None = None
    ) -> None:
        """Let the other replicas know, beside the request.

        Args:
            kind: What is known.
            about: Of whom or what.
            reading: As it was read from the records.
            until: Unix seconds, when it counts for nothing any more; None: after `kept_s`.
        """
        life_s = reading.read_at + self._kept_s - self._clock()
        if until is not None:
            life_s = min(life_s, until - self._clock())
        if life_s < 0.001:  # Redis counts milliseconds
            return
        name = self._values.name(kind.name, *about)
        value = kind.to_bytes(reading)
        if value is not None and len(value) <= MOST_BYTES:
            self._writer.put(name, Write(self._values.seal(name, value), life_s))

    def forget(self, *ids: str) -> None:
        """Believe no reading about these that is not younger than this moment: something was changed."""
        now = self._clock()
        for one in ids:
            self._forgotten[one] = now
            self._forgotten.move_to_end(one)
        while len(self._forgotten) > MOST_FORGOTTEN:
            _, self._forgotten_before = self._forgotten.popitem(last=False)

    def forget_all(self) -> None:
        """Believe no reading that is not younger than this moment: more was changed than could be told."""
        self._forgotten_before = self._clock()

    @property
    def failures(self) -> Mapping[str, int]:
        """Questions to Redis that failed, of whoever asked, by reason."""
        return self._redis.failures

    @property
    def dropped(self) -> int:
        """Values that did not reach Redis."""
        return self._writer.dropped

    def go_on(self, before: "SharedTier") -> None:
        """Count on from where another's counts are, whose place this takes."""
        if before is not self:
            self.results, self._writer.dropped = before.results, before.dropped + self._writer.dropped
            if before._redis is not self._redis:
                self._redis.failures = before._redis.failures

    def now(self) -> float:
        """Unix seconds, for a reading that begins."""
        return self._clock()

    async def settled(self) -> None:
        """Wait until everything is written that can be."""
        await self._writer.settled()

    async def close(self) -> None:
        """End what is being written; the way to Redis is its owner's."""
        await self._writer.close()

    def _opened(self, kind: FactKind[F], name: str, sealed: object) -> Reading[F] | None:
        value = self._values.open(name, sealed) if isinstance(sealed, bytes) else None
        return kind.from_bytes(value) if value is not None else None

    def _judged(self, kind: FactKind[F], reading: Reading[F], fresh_s: float) -> Recalled[F] | None:
        age_s = self._clock() - reading.read_at
        counts = -SKEW_S <= age_s < self._kept_s and not self._changed(kind.ids(reading.fact), reading)
        fresh = counts and self.freshness.whole and age_s < fresh_s
        self.results[kind.name, "hit" if fresh else "stale" if counts else "miss"] += 1
        return Recalled(reading.fact, max(0.0, age_s), fresh) if counts else None

    def _changed(self, ids: tuple[str, ...], reading: Reading[Any]) -> bool:
        at = max(self._forgotten_before, *(self._forgotten.get(one, 0.0) for one in ids))
        return reading.read_at <= at + SKEW_S or self.freshness.changed_since(reading.version, *ids)

    async def _write(self, name: str, write: Write) -> None:
        # A whole number would be taken for seconds.
        await self._redis.run(lambda _: self._cache.set(name, write.value, ttl=float(write.life_s)))
