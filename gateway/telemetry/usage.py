"""Uses of features: what routes name in `track`, noted on the request's way and delivered beside it.

Noting is one append to a list. A task takes them off it in batches and hands each to PostHog until it is taken; memory
is bounded, and what finds no room is counted and gone.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
import structlog

from config.model import Posthog, Route, Settings
from gateway.actors.actor import Actor
from gateway.actors.beliefs import Caller
from gateway.parts import Parts
from gateway.telemetry.posthog import Batch, Outcome, PosthogBatches, UsageEvent
from provisioning.background import end_tasks

MOST_WAITING = 20_000
BATCH = 500
DELIVER_EVERY_S = 2.0
BACKOFF_MIN_S = 1.0
BACKOFF_MAX_S = 60.0
CLOSE_S = 2.0
"""Seconds the last events have at the end of a process."""
RESULTS = ("delivered", "refused", "no_room", "undelivered")
_log = structlog.get_logger()


@dataclass(slots=True)
class Tally:
    """Count of uses by what became of them, for metrics; every word of `RESULTS` but the first is a loss."""

    by_result: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RESULTS, 0))


class Usage:
    """Notes uses, and delivers them.

    Attributes:
        tally: Counts; who takes another's place may go on with its counts.
    """

    def __init__(
        self,
        posthog: PosthogBatches | None,
        *,
        most_waiting: int = MOST_WAITING,
        deliver_every_s: float = DELIVER_EVERY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin with nothing noted.

        Args:
            posthog: Takes batches; None: nobody does, and nothing is noted.
            most_waiting: Uses kept at most until they are taken.
            deliver_every_s: Seconds between two deliveries.
            clock: Unix seconds.
        """
        self._posthog = posthog
        self._most = most_waiting
        self._deliver_every_s = deliver_every_s
        self._clock = clock
        self._noted: list[tuple[str, Actor, float]] = []
        self._batches: list[Batch] = []  # formed: their events have ids, which later attempts must repeat
        self._formed = 0
        self._task: asyncio.Task[None] | None = None
        self.tally = Tally()

    @property
    def waiting(self) -> int:
        """Uses that were noted and not taken yet."""
        return len(self._noted) + self._formed

    def note(self, feature: str, caller: Caller | None, status: int) -> None:
        """Note a use: the upstream answered a known person below 400, or opened a websocket for them.

        Nobody's use is counted, nor an operator's program's, nor that of whoever acts in a person's name.
        """
        if caller is None or status >= 400 or self._posthog is None:
            return
        actor = caller.actor
        if not actor.user_id or actor.principal.impersonator is not None:
            return
        if len(self._noted) + self._formed >= self._most:
            self.tally.by_result["no_room"] += 1
            return
        self._noted.append((feature, actor, self._clock()))

    def start(self) -> None:
        """Deliver from now on."""
        if self._posthog is not None:
            self._task = asyncio.create_task(self._deliver_for_ever(self._posthog))

    async def close(self) -> None:
        """Deliver what is left, for `CLOSE_S` at most and each batch once; what remains is counted as lost."""
        task, self._task = self._task, None
        await end_tasks(task)
        if self._posthog is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    while self.waiting and (await self._deliver(self._posthog)).done:
                        pass
        self.tally.by_result["undelivered"] += self.waiting
        self._noted, self._batches, self._formed = [], [], 0

    async def _deliver_for_ever(self, posthog: PosthogBatches) -> None:
        failures = 0
        while True:
            if not failures:
                await asyncio.sleep(self._deliver_every_s)
            outcome = await self._deliver(posthog)
            while outcome.done and self.waiting >= BATCH:
                outcome = await self._deliver(posthog)
            if outcome.done:
                failures = 0
                continue
            failures += 1
            if failures == 1:
                _log.warning("usage events are not taken", reason=outcome.reason, waiting=self.waiting)
            await asyncio.sleep(_rest_s(failures, outcome.retry_after_s))

    async def _deliver(self, posthog: PosthogBatches) -> Outcome:
        """Hand over the oldest batch; it stays until it is taken or refused for good."""
        if not self._batches:
            noted, self._noted = self._noted[:BATCH], self._noted[BATCH:]
            if not noted:
                return Outcome("delivered")
            self._keep(posthog.batch([_event(*use) for use in noted]))
        batch = self._batches[0]
        outcome = await posthog.deliver(batch)
        if outcome.too_large and len(batch.events) > 1:
            half = len(batch.events) // 2
            self._batches[:1] = [posthog.batch(batch.events[:half]), posthog.batch(batch.events[half:])]
            return Outcome("delivered")  # of nothing yet: the halves come next
        if outcome.done:
            self._drop_first()
            self.tally.by_result[outcome.result] += len(batch.events)
            if outcome.result == "refused":
                _log.error("usage events were refused", reason=outcome.reason, events=len(batch.events))
        return outcome

    def _keep(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._formed += len(batch.events)

    def _drop_first(self) -> None:
        self._formed -= len(self._batches.pop(0).events)


async def usage_of(parts: Parts, config: Posthog | None, session: aiohttp.ClientSession) -> Usage:
    """Begin to deliver, or carry it over."""

    async def start() -> Usage:
        if config is None:
            return Usage(None)
        usage = Usage(PosthogBatches(session, config.host, config.project_key.get_secret_value()))
        usage.start()
        return usage

    return await parts.hold("usage", (config,), start, Usage.close)


def tracked(settings: Settings) -> tuple[Route, ...]:
    """The routes, without `track` when nobody would be told: such requests then cost what all others do."""
    if settings.posthog is not None:
        return settings.routes
    return tuple(route.model_copy(update={"track": None}) for route in settings.routes)


def _event(feature: str, actor: Actor, at: float) -> UsageEvent:
    return UsageEvent(feature, actor.user_id, actor.organization_id, actor.principal.kind.value, at)


def _rest_s(failures: int, asked_s: float | None) -> float:
    """How long to leave PostHog alone: as long as it asks, or twice as long each time, never in step with others."""
    rest = asked_s if asked_s is not None else min(BACKOFF_MIN_S * 2 ** min(failures - 1, 10), BACKOFF_MAX_S)
    return min(rest, BACKOFF_MAX_S) * random.uniform(1.0, 1.25)  # noqa: S311 - no secret
