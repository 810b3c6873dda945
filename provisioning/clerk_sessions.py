"""Ending a person's sessions at Clerk, so that it gives them no more tokens; the outbox tries again until it is done.

Only sessions that began before the person was signed out: a retry may come days later, and who has signed in again
stays. Each session is written down before it is ended, so that what Clerk issued meanwhile is denied as well.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from provisioning.clerk_api import ClerkApi, ClerkUnanswered
from provisioning.database.pool import Database
from provisioning.ended_sessions import UNCONFIRMED_S, confirm, note_sessions
from provisioning.outbox.clerk_reasons import CLERK_REASONS
from provisioning.outbox.effects import Delivery, DeliveryFailed, Topic

DEADLINE_S = 20.0
PAGE = 500
"""What Clerk gives at most."""
MOST_PAGES = 20
STATUSES = ("active", "pending")
"""Of sessions that Clerk gives tokens."""
_NOTED_WITHIN = timedelta(seconds=2)
"""How long after its moment a sign-out has written down the sessions that were seen here."""


class ClerkSessions:
    """Ends sessions at Clerk."""

    topic: Topic = "sessions"
    most = 1

    def __init__(
        self, database: Database, clerk_api: ClerkApi, life_s: float, *, deadline_s: float = DEADLINE_S
    ) -> None:
        """Settle whom to ask.

        Args:
            database: Where sessions are written down.
            clerk_api: With a secret key.
            life_s: Seconds that the last token of a session lives after its end, with what is minted for it.
            deadline_s: For one person.
        """
        self._database = database
        self._clerk_api = clerk_api
        self._life_s = life_s
        self.deadline_s = deadline_s

    async def end_all(self, clerk_user_id: str, before: datetime, deadline_s: float) -> tuple[str, ...]:
        """End all sessions of a person that began up to a moment, and keep them denied while their tokens live.

        Args:
            clerk_user_id: `user_…`.
            before: As it was written down with the sign-out.
            deadline_s: All in all.

        Returns:
            Which were ended now, `sess_…`.

        Raises:
            ClerkUnanswered: With the outcome; some may be ended.
            DatabaseUnavailable: They could not be written down.
        """
        try:
            async with asyncio.timeout(deadline_s):
                found = await self._begun(clerk_user_id, before, deadline_s)
                if found:
                    async with self._database.transaction() as connection:
                        await note_sessions(connection, found, clerk_user_id, UNCONFIRMED_S)
                for session_id in found:
                    await self._end(session_id, deadline_s)
        except TimeoutError:
            raise ClerkUnanswered("timeout") from None
        async with self._database.transaction() as connection:
            await confirm(connection, clerk_user_id, before + _NOTED_WITHIN, found, self._life_s)
        return found

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """End what is left of each sign-out."""
        for delivery in deliveries:
            payload = delivery.payload
            before = datetime.fromisoformat(str(payload["before"]))
            try:
                await self.end_all(str(payload["clerkId"]), before, self.deadline_s)
            except ClerkUnanswered as error:
                raise DeliveryFailed(CLERK_REASONS.get(error.outcome, "error"), error.retry_after_s) from None

    async def _begun(self, clerk_user_id: str, before: datetime, deadline_s: float) -> tuple[str, ...]:
        found: list[str] = []
        for status in STATUSES:
            for page in range(MOST_PAGES):
                query = f"user_id={quote(clerk_user_id, safe='')}&status={status}&limit={PAGE}&offset={page * PAGE}"
                listed = _listed(await self._clerk_api.ask(f"sessions?{query}", deadline_s))
                found += [one["id"] for one in listed if _began(one) <= before.timestamp()]
                if len(listed) < PAGE:
                    break
            else:
                raise ClerkUnanswered("malformed")  # nobody has so many: it does not heed the offset
        return tuple(dict.fromkeys(found))

    async def _end(self, session_id: str, deadline_s: float) -> None:
        try:
            await self._clerk_api.ask(f"sessions/{quote(session_id, safe='')}/revoke", deadline_s, method="POST")
        except ClerkUnanswered as error:
            if error.outcome != "absent":  # it is gone already
                raise


def _listed(answer: object) -> list[Mapping[str, Any]]:
    """Read a list of sessions: plain, or one page of several."""
    entries = answer.get("data") if isinstance(answer, dict) else answer
    if not isinstance(entries, list):
        raise ClerkUnanswered("malformed")
    if not all(isinstance(one, dict) and isinstance(one.get("id"), str) for one in entries):
        raise ClerkUnanswered("malformed")
    return entries


def _began(session: Mapping[str, Any]) -> float:
    """When it began, Unix seconds; one that does not say is as old as any."""
    created_at = session.get("created_at")
    return created_at / 1000 if isinstance(created_at, int | float) else 0.0
