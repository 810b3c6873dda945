"""Signing a person out everywhere: written down at once for every process, carried to Clerk as soon as it answers.

Locks: the person's row, sessions that are over, API tokens, the outbox, audit chains at last (docs/decisions/033).
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from provisioning.administration import lock_person
from provisioning.audit import Event, Origin, append
from provisioning.clerk_api import ClerkUnanswered
from provisioning.clerk_sessions import ClerkSessions
from provisioning.database.pool import Connection, Database
from provisioning.ended_sessions import UNCONFIRMED_S, note_sessions, note_sign_out, seen_sessions
from provisioning.errors import DatabaseUnavailable
from provisioning.outbox.effects import Effect
from provisioning.outbox.queue import enqueue
from provisioning.records import ApiToken, User
from provisioning.rows import user_of
from provisioning.tokens import ended_token

AT_CLERK_S = 1.5
"""How long whoever asks waits for Clerk; the outbox begins when that is certainly over."""
AtClerk = Literal["ended", "pending", "unmanaged"]

# Whatever was good in this moment: a token's own clock may be ahead by what is tolerated.
_MOMENT = "SELECT date_trunc('second', now() + $1::interval)"
_TOKENS = """
    SELECT id AS token_id FROM api_tokens
    WHERE user_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) ORDER BY id
"""
_PUT_OFF = """
    UPDATE outbox SET next_attempt_at = now() + $2::interval
    WHERE topic = 'sessions' AND key = $1 AND state = 'pending' AND taken_by IS NULL
"""
_DONE = """
    UPDATE outbox SET state = 'delivered', finished_at = now(), last_error = NULL, payload = '{}'
    WHERE topic = 'sessions' AND key = $1 AND state = 'pending' AND taken_by IS NULL
"""


@dataclass(frozen=True, slots=True)
class SignedOut:
    """What was written down.

    Attributes:
        before: What was issued to this person up to then counts no more.
        sessions: Those of theirs that were seen here, `sess_…`.
        tokens: API tokens that were revoked, `atk_…`.
        key: Of the row of the outbox that ends the sessions at Clerk; None: Clerk is not asked.
    """

    user: User = field(repr=False)
    before: datetime
    sessions: tuple[str, ...]
    tokens: tuple[str, ...]
    key: str | None


class SignOuts:
    """Signs people out. Methods raise `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(
        self, database: Database, clerk: ClerkSessions | None, life_s: float, leeway_s: float, *, managed: bool
    ) -> None:
        """Settle where.

        Args:
            database: Where it is written.
            clerk: Ends sessions at Clerk; None: here nobody does, but
            managed: the outbox does.
            life_s: Seconds that the last token of a session lives after its end, with what is minted for it.
            leeway_s: `clerk.leeway`.
        """
        self._database = database
        self._clerk = clerk
        self._managed = managed
        self._life_s = life_s
        self._leeway = timedelta(seconds=leeway_s)

    async def sign_out(
        self, user_id: str, origin: Origin, *, by: str | None, api_tokens: bool, session_id: str | None = None
    ) -> SignedOut:
        """Write down that a person is signed out everywhere, from this moment on.

        Args:
            user_id: `usr_…`.
            origin: For the audit event.
            by: The administrator who asks for somebody else, `usr_…`; None: an operator, or the person.
            api_tokens: Revoke their API tokens as well.
            session_id: Of theirs, `sess_…`, with which they ask; it may not be written down yet as seen.

        Raises:
            UserMissing: No such user; UserEnded: only a tombstone.
            NoAdministrator: Who asks administers no more; OwnAccount: they ask for themselves.
        """
        async with self._database.transaction() as connection:
            user = user_of(await lock_person(connection, user_id, by, takes_away=True))
            before = await connection.fetchval(_MOMENT, self._leeway)
            seen = await seen_sessions(connection, user.id)
            sessions = sorted({*seen, session_id}) if session_id is not None else seen
            await note_sign_out(connection, user.clerk_id, before, self._life_s)
            await note_sessions(connection, sessions, user.clerk_id, UNCONFIRMED_S)
            ended = await _end_tokens(connection, user.id, origin) if api_tokens else []
            key = await self._announce(connection, user, before)
            facts = {"sessions": len(sessions), "apiTokens": len(ended)}
            events = [event for _, events in ended for event in events]
            await append(connection, *events, Event("user.signed_out", None, origin, (user.id,), facts))
        return SignedOut(user, before, tuple(sessions), tuple(token.id for token, _ in ended), key)

    async def end_at_clerk(self, signed_out: SignedOut) -> tuple[AtClerk, tuple[str, ...]]:
        """Try to end the sessions at Clerk now; what fails is left to the outbox.

        Returns:
            What came of it, and which were ended, `sess_…`; `unmanaged`: there is no `clerk.secret_key`.
        """
        if signed_out.key is None:
            return "unmanaged", ()
        if self._clerk is None:
            return "pending", ()
        try:
            ended = await self._clerk.end_all(signed_out.user.clerk_id, signed_out.before, AT_CLERK_S)
            async with self._database.connection() as connection:
                await connection.execute(_DONE, signed_out.key)
        except (ClerkUnanswered, DatabaseUnavailable):
            return "pending", ()
        return "ended", ended

    async def _announce(self, connection: Connection, user: User, before: datetime) -> str | None:
        if not self._managed:
            return None
        key = f"sign_out:{user.id}:{before.isoformat()}"
        payload = {"clerkId": user.clerk_id, "before": before.isoformat()}
        await enqueue(connection, Effect("sessions", "sign_out", key, payload))
        if self._clerk is not None:  # first it is tried by whoever was asked
            await connection.execute(_PUT_OFF, key, timedelta(seconds=4 * AT_CLERK_S))
        return key


async def _end_tokens(connection: Connection, user_id: str, origin: Origin) -> list[tuple[ApiToken, tuple[Event, ...]]]:
    rows = await connection.fetch(_TOKENS, user_id)
    return [await ended_token(connection, row, origin, cause="signed_out") for row in rows]
