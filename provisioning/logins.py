"""Logins: each session of Clerk's once, however many processes see it; noted in memory, written beside requests.

A session's first row in `logins` is the login: with it go the audit event and what is announced, in one transaction.
Whoever comes second finds the row. A process that dies before it wrote has lost nothing: the session's next token is
noted again, by whichever process it comes to.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

import structlog

from provisioning.audit import Event, Origin, append, fit, moment_of
from provisioning.database.pool import Connection, Database
from provisioning.errors import DatabaseUnavailable
from provisioning.records import User

BATCH = 100
MOST_WAITING = 10_000
MOST_SEEN = 100_000
SEEN_AGAIN_S = 86400.0
"""A session in use is written again once a day, so that its row tells when it was last seen."""
KEPT_FOR = timedelta(days=90)
"""Since a session was last seen; one that comes back after that counts as a login again."""
_REAPED_AT_ONCE = 1000
_FIT_SESSION = re.compile(r"[!-~]{1,255}")
_log = structlog.get_logger(__name__)

# Keys in one order, so that two processes with the same sessions wait for each other but never in a circle.
_INSERT = """
    INSERT INTO logins AS l (session_id, user_id, organization_id, impersonator_id, address, user_agent, at, seen_at)
    SELECT n.*, n.at FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                                 $7::timestamptz[]) AS n (session_id, user_id, organization_id, impersonator_id,
                                                          address, user_agent, at)
    ORDER BY n.session_id COLLATE "C"
    ON CONFLICT (session_id) DO UPDATE SET seen_at = excluded.seen_at
    WHERE l.seen_at < excluded.seen_at - $8::interval
    RETURNING session_id, at = seen_at AS is_new
"""
_REAP = f"""
    DELETE FROM logins WHERE session_id IN (
        SELECT session_id FROM logins WHERE seen_at <= now() - $1::interval
        ORDER BY seen_at LIMIT {_REAPED_AT_ONCE} FOR UPDATE SKIP LOCKED
    ) RETURNING session_id
"""  # noqa: S608 - a number of our own


@dataclass(frozen=True, slots=True)
class Login:
    """A session's first appearance.

    Attributes:
        session_id: Clerk's `sess_…`.
        user: Whose session it is.
        organization_id: `org_…` of ours that the first request acted in.
        origin: Who, and from where; with an impersonator it is no login of the user's.
        at: Unix seconds.
    """

    session_id: str
    user: User = field(repr=False)
    organization_id: str
    origin: Origin
    at: float

    @property
    def event(self) -> Event:
        """What the audit is told."""
        action = "user.login" if self.origin.impersonator_id is None else "user.impersonated"
        facts = {"sessionId": self.session_id}
        return Event(action, self.organization_id, self.origin, (self.user.id,), facts, self.moment)

    @property
    def moment(self) -> datetime:
        """The same as `at`, as a moment."""
        return moment_of(self.at)


Announce: TypeAlias = Callable[[Connection, Sequence[Login]], Awaitable[None]]
"""Tells others of logins, inside the transaction that wrote them."""


async def announce_nothing(connection: Connection, logins: Sequence[Login]) -> None:
    """Tell nobody."""


class Logins:
    """Remembers sessions since they were last written.

    Attributes:
        dropped: Counts under `login` those that found no room.
    """

    def __init__(
        self,
        database: Database,
        dropped: dict[str, int],
        announce: Announce = announce_nothing,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin with nothing seen.

        Args:
            database: Where they are written.
            dropped: Where losses are counted.
            announce: Told of logins, not of impersonated sessions.
            clock: Unix time in seconds.
        """
        self._database = database
        self.dropped = dropped
        self._announce = announce
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._waiting: dict[str, Login] = {}
        self._writing: Mapping[str, Login] = {}

    def wants(self, session_id: str) -> bool:
        """Tell whether this session is to be noted; for all but the first of its requests one look into a table."""
        seen = self._seen.get(session_id)
        return seen is None or not seen <= self._clock() < seen + SEEN_AGAIN_S  # a clock set back hides nobody

    def note(self, login: Login) -> None:
        """Remember a session; when there is no room it is counted, and its next token is noted again."""
        if _FIT_SESSION.fullmatch(login.session_id) is None:
            return
        if len(self._waiting) + len(self._writing) >= MOST_WAITING:
            self.dropped["login"] += 1
            return
        if len(self._seen) >= MOST_SEEN:
            del self._seen[next(iter(self._seen))]  # met again it is written again, which finds its row
        self._seen[login.session_id] = login.at
        self._waiting[login.session_id] = login

    async def write(self) -> int:
        """Write what was noted, a batch per transaction; gives how many logins were new.

        Raises:
            DatabaseUnavailable: The rest is kept for the next time.
        """
        new = 0
        while self._waiting:
            first = list(self._waiting)[:BATCH]
            self._writing = batch = {session_id: self._waiting.pop(session_id) for session_id in first}
            try:
                new += await self._write(list(batch.values()))
            except (DatabaseUnavailable, asyncio.CancelledError):
                self._waiting = {**batch, **self._waiting}
                raise
            except Exception as error:  # noqa: BLE001 - also of whoever announces
                # What one batch holds must not hold up all others for ever.
                self.dropped["login"] += len(batch)
                _log.error("logins_not_written", count=len(batch), reason=type(error).__name__)
            finally:
                self._writing = {}
        return new

    async def reap(self) -> int:
        """Delete sessions that were not seen for `KEPT_FOR`; gives how many.

        Raises:
            DatabaseUnavailable: The rest is for the next time.
        """
        done = 0
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(_REAP, KEPT_FOR)
            done += len(rows)
            if len(rows) < _REAPED_AT_ONCE:
                return done

    async def _write(self, batch: Sequence[Login]) -> int:
        columns = zip(*map(_columns, batch), strict=True)
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_INSERT, *map(list, columns), timedelta(seconds=SEEN_AGAIN_S) / 2)
            new_ids = {row["session_id"] for row in rows if row["is_new"]}
            new = [login for login in batch if login.session_id in new_ids]
            own = [login for login in new if login.origin.impersonator_id is None]
            if own:
                await self._announce(connection, own)
            if new:
                await append(connection, *(login.event for login in new))
        return len(new)


def _columns(login: Login) -> tuple[object, ...]:
    origin = login.origin
    return (
        login.session_id,
        login.user.id,
        login.organization_id,
        fit(origin.impersonator_id),
        fit(origin.address),
        fit(origin.user_agent),
        login.moment,
    )
