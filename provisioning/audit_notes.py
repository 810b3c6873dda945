"""What requests leave behind for the audit, written beside them: two background tasks over logins and denials."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from provisioning.background import end_tasks
from provisioning.database.pool import Database
from provisioning.denials import Denials
from provisioning.errors import DatabaseUnavailable
from provisioning.logins import Announce, Logins, announce_nothing

WRITE_EVERY_S = 1.0
REAP_EVERY_S = 3600.0
KINDS = ("login", "access_denied")
_log = structlog.get_logger(__name__)


class AuditNotes:
    """Takes notes from requests, and writes them every second.

    Attributes:
        dropped: Count by kind (a word of `KINDS`) of notes that found no room, for metrics.
        logins: Where sessions are noted.
        denials: Where refusals are noted.
    """

    def __init__(
        self,
        database: Database,
        announce: Announce = announce_nothing,
        *,
        write_every_s: float = WRITE_EVERY_S,
        reap_every_s: float = REAP_EVERY_S,
    ) -> None:
        """Begin with nothing noted.

        Args:
            database: Where it is written.
            announce: Told of logins, inside the transaction that wrote them.
            write_every_s: Seconds between two rounds of writing.
            reap_every_s: The longest between two rounds of deleting old sessions.
        """
        self.dropped = dict.fromkeys(KINDS, 0)
        self.logins = Logins(database, self.dropped, announce)
        self.denials = Denials(database, self.dropped)
        self._write_every_s = write_every_s
        self._reap_every_s = reap_every_s
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def go_on(self, before: "AuditNotes") -> None:
        """Go on with the counts of those whose place these take."""
        self.dropped = self.logins.dropped = self.denials.dropped = before.dropped

    def start(self) -> None:
        """Begin; processes that started together do not march in step."""
        self._tasks = (asyncio.create_task(self._write()), asyncio.create_task(self._reap()))

    async def close(self) -> None:
        """End, and write what was noted last, if PostgreSQL is there."""
        tasks, self._tasks = self._tasks, ()
        await end_tasks(*tasks)
        if tasks:
            await self.write(ending=True)

    async def write(self, *, ending: bool = False) -> None:
        """Write what was noted; what PostgreSQL does not take now stays for the next time."""
        with _going_on("logins"):
            await self.logins.write()
        with _going_on("denials"):
            await self.denials.write(ending=ending)

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(self._write_every_s)
            await self.write()

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(self._reap_every_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            with _going_on("reap"):
                if done := await self.logins.reap():
                    _log.info("logins_reaped", rows=done)


@contextmanager
def _going_on(task: str) -> Iterator[None]:
    """Let a round fail and the next one come, whatever PostgreSQL says."""
    try:
        yield
    except DatabaseUnavailable:
        pass  # counted where it happened
    except Exception as error:  # noqa: BLE001 - whatever it was, the next round must come
        _log.error("audit_notes_failed", task=task, reason=type(error).__name__)
