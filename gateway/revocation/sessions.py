"""That sessions are over, made true in this process: they are denied, not remembered, and have nothing open any more.

Other processes find the rows (`provisioning/ended_sessions.py`), at which each of them looks a little more often than
`cache.near_ttl` passes. Whoever tells them at once calls `LocalSessions` there.
"""

import asyncio
import random
from contextlib import suppress
from datetime import datetime

import asyncpg
import structlog

from gateway.actors.callers import Callers
from gateway.live.registry import Registry
from gateway.revocation.denied import MOST, Denied
from provisioning.background import end_tasks
from provisioning.ended_sessions import EndedSessions
from provisioning.errors import DatabaseUnavailable

SHORTEST_S = 0.5
AT_ONCE = 500
"""Ends that are made true in a row; then others have their turn on the loop."""
PRUNED_EVERY_S = 600.0
_log = structlog.get_logger(__name__)


class LocalSessions:
    """Ends sessions here; nothing in here waits.

    Attributes:
        life_s: How long the last token of a session lives at most, with what is minted for it.
        in_touch: Ends told by other processes are heard of.
        doubted: Some may have been missed: the records are to be looked at now.
    """

    def __init__(self, denied: Denied, live: Registry, life_s: float) -> None:
        """Take what is to know of it; callers come later, with `adopt`."""
        self._denied = denied
        self._live = live
        self._callers: tuple[Callers, ...] = ()
        self.life_s = life_s
        self.in_touch = True
        self.doubted = asyncio.Event()

    def adopt(self, callers: Callers) -> None:
        """Have these forget from now on, and those before them too: they serve until others are in force."""
        if callers not in self._callers:
            self._callers = (*self._callers[-1:], callers)

    def doubt(self) -> None:
        """Some may have been missed: ask the records about each credential, until they were looked at."""
        self._denied.doubt()
        self.doubted.set()

    def lose_touch(self) -> None:
        """Ends elsewhere may be missed from now on."""
        self.in_touch = False
        self.doubt()

    def regain_touch(self, *, missed: bool) -> None:
        """They are heard of again; some may have been missed."""
        self.in_touch = True
        if missed:
            self.doubt()

    def session_ended(
        self, session_id: str, *, user_id: str | None, clerk_user_id: str | None, for_s: float | None = None
    ) -> None:
        """End one, if that is news.

        Args:
            session_id: `sess_…`.
            user_id: Whose, `usr_…`; None: not known, so that all who are remembered are looked through.
            clerk_user_id: The same by Clerk's id.
            for_s: Seconds for which it is denied; None: `life_s`.
        """
        if self._denied.end_session(session_id, self.life_s if for_s is None else for_s):
            for callers in self._callers:
                callers.forget_sessions(user_id, clerk_user_id, session_id)
            self._live.end_session(session_id)

    def signed_out(
        self,
        clerk_user_id: str,
        before: float,
        *,
        user_id: str | None,
        for_s: float | None = None,
        acting: bool = False,
    ) -> None:
        """End all that a person was given up to a moment, if that is news.

        Args:
            clerk_user_id: `user_…`.
            before: Unix seconds, by Clerk's clock.
            user_id: The same person, `usr_…`; None: not known, as above.
            for_s: Seconds for which that is kept in mind; None: `life_s`.
            acting: Only what they were given as somebody else.
        """
        if self._denied.sign_out(clerk_user_id, before, self.life_s if for_s is None else for_s, acting=acting):
            for callers in self._callers:
                callers.forget_sessions(user_id, clerk_user_id)
            self._live.end_sessions_of(clerk_user_id, acting=acting)


class SessionWatch:
    """Keeps what is denied here as the records have it, with one task that also prunes them."""

    def __init__(
        self,
        denied: Denied,
        sessions: LocalSessions,
        rows: EndedSessions,
        near_ttl_s: float,
        degraded_ttl_s: float | None = None,
        most: int = MOST,
    ) -> None:
        """Begin with nothing read.

        Args:
            denied: What is kept.
            sessions: Told of what is new.
            rows: What is read.
            near_ttl_s: `cache.near_ttl`; looked at a little more often, so that this bound holds for sessions too.
            degraded_ttl_s: `cache.degraded_ttl`: the bound while ends elsewhere are not heard of; None: the same.
            most: Rows of each kind that `denied` takes.
        """
        self._degraded_s = max(SHORTEST_S, 0.8 * min(near_ttl_s, degraded_ttl_s or near_ttl_s))
        self._denied = denied
        self._sessions = sessions
        self._rows = rows
        self._most = most
        self._period_s = max(SHORTEST_S, 0.8 * near_ttl_s)
        self._since: datetime | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once, before anybody is let through, then again and again.

        While the records cannot be read, each credential is asked about by itself (`Denied.whole`).
        """
        with suppress(DatabaseUnavailable):
            await self.look()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Look no more."""
        await end_tasks(self._task)

    async def look(self) -> None:
        """Make true here what the records tell since the last look; all of it after something was left out.

        Raises:
            DatabaseUnavailable: They cannot be asked now.
        """
        everything = not self._denied.whole
        self._sessions.doubted.clear()
        self._denied.forget_dead()
        ends = await self._rows.read(None if everything else self._since, self._most + 1)
        fits = len(ends.sessions) <= self._most and len(ends.people) <= self._most
        if everything and not self._sessions.doubted.is_set():  # while it was read
            self._denied.whole = fits  # before the rows: one that finds no room any more says otherwise
        for number, one in enumerate(ends.sessions, 1):
            self._sessions.session_ended(
                one.session_id, user_id=one.user_id, clerk_user_id=one.clerk_user_id, for_s=one.for_s
            )
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        for number, person in enumerate(ends.people, 1):
            self._sessions.signed_out(
                person.clerk_user_id,
                person.before,
                user_id=person.user_id,
                for_s=person.for_s,
                acting=person.acting,
            )
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        self._denied.lacks_room = not fits
        if not fits:
            self._denied.whole = False
        self._since = ends.as_of

    async def _run(self) -> None:
        pruned_in_s = PRUNED_EVERY_S * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        while True:
            period_s = self._period_s if self._sessions.in_touch else self._degraded_s
            with suppress(TimeoutError):
                async with asyncio.timeout(period_s):
                    await self._sessions.doubted.wait()
                await asyncio.sleep(SHORTEST_S / 2)  # doubts come in bursts, and so do those who would ask
            pruned_in_s -= period_s
            try:
                await self.look()
                if pruned_in_s <= 0:
                    pruned_in_s = PRUNED_EVERY_S * random.uniform(0.5, 1.0)  # noqa: S311
                    await self._rows.forget_dead()
            except DatabaseUnavailable:
                pass  # counted where it happened
            except asyncpg.PostgresError as error:
                _log.error("watch_of_sessions_failed", reason=type(error).__name__, sqlstate=error.sqlstate)
