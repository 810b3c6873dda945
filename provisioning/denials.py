"""Refusals where administrators alone may go: put on record, and never so many that the record fills up.

For one actor and route the first refusal is one event, and all others of the same minute are one more. Both are written
beside requests, from bounded memory.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import asyncpg
import structlog

from provisioning.audit import Event, Origin, append, moment_of
from provisioning.database.pool import Database

WINDOW_S = 60.0
MOST_WINDOWS = 10_000
MOST_WAITING = 10_000
BATCH = 100
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Denial:
    """One refusal.

    Attributes:
        origin: Who was refused, and from where.
        organization_id: `org_…` they acted in; None: none, a system token.
        route: The label of the route or own endpoint.
        method: Of the request.
        reason: The exact cause, a word of a closed set.
    """

    origin: Origin
    organization_id: str | None
    route: str
    method: str
    reason: str


@dataclass(slots=True)
class _Window:
    """A minute of one actor on one route; `last` is the latest of those that were not written one by one."""

    began: float
    again: int = 0
    last: Denial | None = None


class Denials:
    """Remembers refusals since they were last written.

    Attributes:
        dropped: Counts under `access_denied` those that found no room.
    """

    def __init__(
        self,
        database: Database,
        dropped: dict[str, int],
        *,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin with none.

        Args:
            database: Where they are written.
            dropped: Where losses are counted.
            window_s: Seconds of which all but the first refusal are one event.
            clock: Unix time in seconds.
        """
        self._database = database
        self.dropped = dropped
        self._window_s = window_s
        self._clock = clock
        self._windows: dict[tuple[object, ...], _Window] = {}
        self._waiting: list[Event] = []

    def note(self, denial: Denial) -> None:
        """Remember a refusal; all but the first of a minute are counted."""
        now, who = self._clock(), denial.origin
        key = (who.actor_kind, who.actor_id, who.impersonator_id, denial.organization_id, denial.route)
        window = self._windows.get(key)
        if window is not None and window.began <= now < window.began + self._window_s:
            window.again += 1
            window.last = denial
            return
        if window is not None:
            self._close(window)
        elif len(self._windows) >= MOST_WINDOWS:
            self.dropped["access_denied"] += 1
            return
        self._windows[key] = _Window(now)
        self._keep(denial, now, 1)

    async def write(self, *, ending: bool = False) -> int:
        """Write what was noted, a batch per transaction; gives how many events.

        Args:
            ending: Also write what the minutes under way have counted so far.

        Raises:
            DatabaseUnavailable: The rest is kept for the next time.
        """
        now = self._clock()
        for key, window in list(self._windows.items()):
            if ending or not window.began <= now < window.began + self._window_s:
                del self._windows[key]
                self._close(window)
        written = 0
        while self._waiting:
            batch = self._waiting[:BATCH]
            try:
                async with self._database.transaction() as connection:
                    await append(connection, *batch)
            except asyncpg.PostgresError as error:
                self.dropped["access_denied"] += len(batch)
                _log.error("denials_not_written", count=len(batch), sqlstate=error.sqlstate)
            else:
                written += len(batch)
            del self._waiting[: len(batch)]  # those noted meanwhile came behind
        return written

    def _close(self, window: _Window) -> None:
        if window.last is not None:
            self._keep(window.last, window.began, window.again)

    def _keep(self, denial: Denial, since: float, times: int) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self.dropped["access_denied"] += times
            return
        facts = {
            "route": denial.route,
            "method": denial.method,
            "reason": denial.reason,
            "times": times,
            "since": moment_of(since).isoformat(timespec="milliseconds"),
        }
        moment = moment_of(self._clock())
        self._waiting.append(Event("admin.access_denied", denial.organization_id, denial.origin, (), facts, moment))
