"""The first administrators: people one of whose addresses the settings name, and Clerk verified.

An address in a token proves nothing, since people choose it themselves: only what Clerk's Backend API calls verified
counts. A new person is asked about within first sight. Known people are asked about once in the life of this process,
one after the other, beside requests; while Clerk does not answer they wait. Nobody is demoted here, and nobody promoted
whose role was set by hand.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeAlias

import structlog
from cachebox import LRUCache

from config.model import Settings
from provisioning.administration import Administration
from provisioning.background import end_tasks
from provisioning.clerk_api import ClerkApi
from provisioning.database.pool import Database
from provisioning.errors import DatabaseUnavailable
from provisioning.records import Role, User

PACE_S = 0.2
"""Seconds between two questions about known people: a twentieth of what Clerk allows a production instance."""
MOST_WAITING = 10_000
SETTLED = 100_000
"""People this process remembers to have asked about; who fell out is asked about again."""
LONGEST_REST_S = 60.0
Tell: TypeAlias = Callable[[User, bool], None]
"""Told of somebody who is an administrator from now on, and whether they were known before."""
_log = structlog.get_logger(__name__)


def _tell_nobody(_user: User, _was_known: bool) -> None:
    """Leave it to who reads the records next."""


class Bootstrap:
    """Looks for those the settings name."""

    def __init__(
        self,
        administration: Administration,
        clerk_api: ClerkApi,
        emails: Iterable[str],
        *,
        tell: Tell = _tell_nobody,
        rest_s: float = 1.0,
    ) -> None:
        """Look for nobody yet.

        Args:
            administration: Writes.
            clerk_api: Knows which addresses are verified.
            emails: `bootstrap.admin_emails`.
            tell: Told of every promotion: other processes, and this one, believe in another role.
            rest_s: Seconds before the next question after one that got no answer; twice as long each further time.
        """
        self._administration = administration
        self._clerk_api = clerk_api
        self._emails = frozenset(map(folded, emails))
        self._tell = tell
        self._rest_s = rest_s
        self._waiting: deque[User] = deque()
        self._settled: LRUCache[str, bool] = LRUCache(SETTLED)
        self._work: asyncio.Task[None] | None = None

    async def administers(self, clerk_user_id: str) -> bool | None:
        """Whether the settings make this person an administrator; None: Clerk does not tell now."""
        addresses = await self._clerk_api.verified_emails(clerk_user_id)
        return None if addresses is None else not self._emails.isdisjoint(map(folded, addresses))

    async def settle(self, user: User, administers: bool | None) -> User:
        """Act on what `administers` gave for this person, who may have it from somebody else meanwhile."""
        if administers:
            with suppress(DatabaseUnavailable):
                promoted = await self._promoted(user, was_known=False)
                self._settled.insert(user.id, True)
                return promoted or user
        if administers is False:
            self._settled.insert(user.id, True)
        else:
            self.consider(user)
        return user

    def consider(self, user: User) -> None:
        """See to it that a known person is asked about, if they were not yet. Does not wait."""
        if user.role is not Role.USER or any((user.disabled_at, user.banned_at, user.deleted_at)):
            return
        if user.id in self._settled or len(self._waiting) >= MOST_WAITING:
            return
        self._settled.insert(user.id, True)
        # An unproven address is good enough to be asked about first.
        if user.email is not None and folded(user.email) in self._emails:
            self._waiting.appendleft(user)
        else:
            self._waiting.append(user)
        if self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().create_task(self._ask_all())

    async def close(self) -> None:
        """End what is under way; who still waits is asked about by another process, or later."""
        await end_tasks(self._work)

    async def _ask_all(self) -> None:
        rest_s = self._rest_s
        while self._waiting:
            user = self._waiting.popleft()
            if await self._ask(user):
                rest_s = self._rest_s
                await asyncio.sleep(PACE_S)
                continue
            self._waiting.append(user)  # at the end: one who can never be answered for keeps nobody waiting
            await asyncio.sleep(rest_s)
            rest_s = min(2 * rest_s, LONGEST_REST_S)

    async def _ask(self, user: User) -> bool:
        """Ask about one person, and promote them; False: not now."""
        administers = await self.administers(user.clerk_id)
        if administers is None:
            return False
        if administers:
            try:
                await self._promoted(user, was_known=True)
            except DatabaseUnavailable:
                return False
        return True

    async def _promoted(self, user: User, *, was_known: bool) -> User | None:
        promoted = await self._administration.promote(user.id)
        if promoted is not None:
            _log.info("administrator_by_settings", user_id=user.id)
            self._tell(promoted, was_known)
        return promoted


def bootstrap_of(settings: Settings, database: Database, clerk_api: ClerkApi, tell: Tell) -> Bootstrap | None:
    """Make it of the settings; None where they name nobody, or nobody could be asked (`config/lint.py` warns)."""
    emails = settings.bootstrap.admin_emails
    if not emails or settings.clerk.secret_key is None:
        return None
    return Bootstrap(Administration(database), clerk_api, emails, tell=tell)


def folded(address: str) -> str:
    """Make ASCII letters small, and nothing else: other alphabets have letters that would turn into Latin ones."""
    return address.strip().encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")
