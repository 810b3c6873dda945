"""What Clerk's webhooks tell, written into our records: each delivery once, in any order, in one transaction.

Of two events about the same thing the one with the later `updated_at` counts, whichever comes first; created and
updated are the same. What was deleted stays so: people and organizations for ever, a membership until Clerk tells of a
later one.

Webhooks tell facts and make nobody arrive: the first API token and whatever else a new person gets belong to their
first request, in the organization of that request, so that the outcome is the same whichever comes first
(docs/decisions/022).

Locks: the delivery, the person's turn, then users, organizations, memberships, tokens, sessions, the outbox, and audit
chains at last (docs/decisions/033).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from asyncpg import Record as Row

from provisioning.audit import Event, Origin, append
from provisioning.clerk_events import (
    ClerkEvent,
    Fact,
    MembershipGone,
    MembershipTold,
    OrganizationGone,
    OrganizationTold,
    PersonGone,
    PersonTold,
    SessionEnded,
)
from provisioning.database.pool import Connection, Database
from provisioning.deliveries import first_time
from provisioning.ended_sessions import note_sessions, note_sign_out
from provisioning.erasure import erase
from provisioning.ids import new_id
from provisioning.memberships import membership_event
from provisioning.outbox.announcements import NOBODY, Announcements
from provisioning.outbox.queue import enqueue
from provisioning.persons import link, linked_event, take_turn
from provisioning.rows import ORGANIZATION_COLUMNS, USER_COLUMNS, organization_of, user_of

SOURCE = "clerk"
Word = Literal["applied", "outdated", "duplicate", "ignored"]

_READ_USER = f"""
    SELECT {USER_COLUMNS}, unseen, clerk_updated_at > $2 AS newer FROM users WHERE clerk_id = $1 FOR NO KEY UPDATE
"""  # noqa: S608 - column names of our own, here and below
_INSERT_USER = """
    INSERT INTO users (id, clerk_id, name, unseen) VALUES ($1, $2, $3, true) ON CONFLICT (clerk_id) DO NOTHING
"""
# Claims may have told a name or an address that Clerk does not, so what is not told stays; but not an address that was
# Clerk's own word and is no more. Clerk tells of every sign-in: a row that says the same as before stays as it is.
_TOLD = """
    SELECT coalesce($2, name) AS name,
           coalesce($3, CASE WHEN email IS DISTINCT FROM verified_email THEN email END) AS email,
           CASE WHEN $4::boolean THEN coalesce(banned_at, now()) END AS banned_at
    FROM users WHERE id = $1
"""
_TELL_USER = f"""
    UPDATE users u SET name = t.name, email = t.email, banned_at = t.banned_at, verified_email = $3,
                       clerk_updated_at = $5,
                       updated_at = CASE WHEN (u.name, u.email, u.banned_at) IS DISTINCT FROM
                                              (t.name, t.email, t.banned_at) THEN now() ELSE u.updated_at END
    FROM ({_TOLD}) t WHERE u.id = $1 RETURNING {", ".join(f"u.{name}" for name in USER_COLUMNS.split(", "))}
"""  # noqa: S608
_LEAVE_ALL = "DELETE FROM memberships WHERE user_id = $1 RETURNING organization_id"
_KNOWN = "SELECT id FROM users WHERE clerk_id = $1"
_CHAINS = "SELECT organization_id FROM memberships WHERE user_id = $1"
_TELL_ORGANIZATION = """
    INSERT INTO organizations (id, clerk_id, name, clerk_updated_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (clerk_id) DO UPDATE
        SET name = coalesce($5, organizations.name), clerk_updated_at = excluded.clerk_updated_at, updated_at = now()
    WHERE organizations.deleted_at IS NULL
      AND coalesce(organizations.clerk_updated_at <= excluded.clerk_updated_at, true)
    RETURNING id
"""
_INSERT_ORGANIZATION = """
    INSERT INTO organizations (id, clerk_id, name) VALUES ($1, $2, $3) ON CONFLICT (clerk_id) DO NOTHING
"""
_READ_ORGANIZATION = f"""
    SELECT {ORGANIZATION_COLUMNS}, deleted_at FROM organizations WHERE clerk_id = $1 FOR KEY SHARE
"""  # noqa: S608
# Waits for every transaction that is putting somebody into it.
_LOCK_ORGANIZATION = "SELECT id, deleted_at FROM organizations WHERE clerk_id = $1 FOR UPDATE"
_DELETE_ORGANIZATION = "UPDATE organizations SET deleted_at = now(), updated_at = now() WHERE id = $1"
_EMPTY_ORGANIZATION = """
    DELETE FROM memberships m USING users u WHERE m.organization_id = $1 AND u.id = m.user_id
    RETURNING u.id, u.clerk_id
"""
_LEFT_SINCE = """
    SELECT EXISTS (SELECT FROM departures
                   WHERE clerk_user_id = $1 AND clerk_organization_id = $2 AND left_at >= $3)
"""
_NOTE_LEAVING = """
    INSERT INTO departures (clerk_user_id, clerk_organization_id, left_at) VALUES ($1, $2, $3)
    ON CONFLICT (clerk_user_id, clerk_organization_id) DO UPDATE SET left_at = excluded.left_at
    WHERE departures.left_at < excluded.left_at
"""
_LEAVE = """
    DELETE FROM memberships m USING users u, organizations o
    WHERE u.clerk_id = $1 AND o.clerk_id = $2 AND m.user_id = u.id AND m.organization_id = o.id
      AND coalesce(m.told_at <= $3, true)
    RETURNING m.user_id, m.organization_id, m.role
"""
_READ_MEMBERSHIP = """
    SELECT role, told_at > $3 AS newer FROM memberships WHERE user_id = $1 AND organization_id = $2 FOR UPDATE
"""
_PUT_MEMBERSHIP = """
    INSERT INTO memberships (user_id, organization_id, role, told_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (user_id, organization_id) DO UPDATE
        SET role = excluded.role, told_at = excluded.told_at, updated_at = now()
"""


@dataclass(frozen=True, slots=True)
class Changed:
    """Somebody of whom our records say something else now.

    Attributes:
        user_id: `usr_…`.
        clerk_user_id: `user_…`.
        organization_id: Where; None: everywhere.
        closes: What they have open there ends: they may not call any more, or only as somebody else.
    """

    user_id: str
    clerk_user_id: str
    organization_id: str | None = None
    closes: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a delivery.

    Attributes:
        word: `applied`; `outdated`: something newer is known; `duplicate`: this very delivery is; `ignored`: no effect.
        changed: Of whom nothing may be believed that was read before.
        user_id: Whose session is over, or who is signed out, `usr_…`; None: nobody we know.
        impersonator_ended: What this person was given as somebody else, up to the event, counts no more.
    """

    word: Word
    changed: tuple[Changed, ...] = ()
    user_id: str | None = None
    impersonator_ended: bool = False


OUTDATED = Outcome("outdated")


class ClerkFacts:
    """Writes what webhooks tell. `receive` raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(
        self,
        database: Database,
        *,
        link_verified_email: bool = False,
        announcements: Announcements = NOBODY,
        session_life_s: float = 90_000.0,
    ) -> None:
        """Settle where.

        Args:
            database: Where.
            link_verified_email: As for first sight; and
            announcements: whom the outbox is to tell.
            session_life_s: How long the last token of a session may live after its end, with what is minted for it.
        """
        self._database = database
        self._session_life_s = session_life_s
        self._announcements = announcements
        self._link_verified_email = link_verified_email

    async def receive(self, delivery_id: str, event: ClerkEvent, request_id: str | None = None) -> Outcome:
        """Let a delivery have its effect, once; it is on disk when this returns.

        Args:
            delivery_id: `svix-id`.
            event: Proven by its signature.
            request_id: For the audit events.
        """
        origin = Origin("gateway", None, None, event.address, event.user_agent, request_id)
        async with self._database.transaction() as connection:
            if not await first_time(connection, SOURCE, delivery_id):
                return Outcome("duplicate")
            return await self._apply(connection, event.fact, origin)

    async def _apply(self, connection: Connection, fact: Fact | None, origin: Origin) -> Outcome:
        match fact:
            case None:
                return Outcome("ignored")
            case PersonTold():
                return await self._person_told(connection, fact, origin)
            case PersonGone():
                return await self._person_gone(connection, fact, origin)
            case OrganizationTold():
                return await _organization_told(connection, fact)
            case OrganizationGone():
                return await _organization_gone(connection, fact, origin)
            case MembershipTold():
                return await self._membership_told(connection, fact, origin)
            case MembershipGone():
                return await _membership_gone(connection, fact, origin)
            case SessionEnded():
                person = fact.clerk_user_id
                await note_sessions(connection, [fact.session_id], person, self._session_life_s)
                return Outcome("applied", user_id=await connection.fetchval(_KNOWN, person))

    async def _end_acting(self, connection: Connection, outcome: Outcome, clerk_id: str, before: datetime) -> Outcome:
        """Deny what somebody was given as another person before: whoever is refused acts as nobody."""
        await note_sign_out(connection, clerk_id, before, self._session_life_s, acting=True)
        user_id = await connection.fetchval(_KNOWN, clerk_id)
        return replace(outcome, user_id=user_id, impersonator_ended=True)

    async def _person_told(self, connection: Connection, told: PersonTold, origin: Origin) -> Outcome:
        outcome = await self._profile_told(connection, told, origin)
        # Even when something newer is known: an unbanning does not bring back what they did as others.
        return await self._end_acting(connection, outcome, told.clerk_user_id, told.at) if told.refused else outcome

    async def _person_gone(self, connection: Connection, gone: PersonGone, origin: Origin) -> Outcome:
        outcome = await _person_gone(connection, gone, origin)
        return await self._end_acting(connection, outcome, gone.clerk_user_id, gone.at)

    async def _profile_told(self, connection: Connection, told: PersonTold, origin: Origin) -> Outcome:
        clerk_id, profile = told.clerk_user_id, told.profile
        await take_turn(connection, clerk_id)
        row = await connection.fetchrow(_READ_USER, clerk_id, told.at)
        linked = None
        if row is None:
            if self._link_verified_email:
                linked = await link(connection, profile.verified_email, clerk_id)
            row = await _person(connection, clerk_id, told.at)
        before = user_of(row)
        if before.deleted_at is not None or row["newer"]:
            return OUTDATED
        row = await connection.fetchrow(
            _TELL_USER, before.id, profile.name, profile.verified_email, told.refused, told.at
        )
        assert row is not None  # noqa: S101 - we hold it
        user, events = user_of(row), []
        chains = await _chains(connection, user.id)
        if linked is not None:
            events += [linked_event(user, linked, chain, origin) for chain in chains]
        if (user.banned_at is None) != (before.banned_at is None):
            action = "user.banned" if user.banned_at is not None else "user.unbanned"
            events += [Event(action, chain, origin, (user.id,)) for chain in chains]
        await append(connection, *events)
        changed = (Changed(user.id, clerk_id, closes=user.banned_at is not None),) if user != before else ()
        return Outcome("applied", changed if linked is None else (*changed, Changed(user.id, linked)))

    async def _membership_told(self, connection: Connection, told: MembershipTold, origin: Origin) -> Outcome:
        pair = told.clerk_user_id, told.clerk_organization_id
        await take_turn(connection, told.clerk_user_id)
        if await connection.fetchval(_LEFT_SINCE, *pair, told.at):
            return OUTDATED
        user = await _person(connection, pair[0], None, told.person_name)
        if user["deleted_at"] is not None:
            return OUTDATED
        await connection.execute(_INSERT_ORGANIZATION, new_id("org"), pair[1], told.organization_name or pair[1])
        organization = await connection.fetchrow(_READ_ORGANIZATION, pair[1])
        assert organization is not None  # noqa: S101 - likewise
        if organization["deleted_at"] is not None:
            return OUTDATED
        ids = user["id"], organization["id"]
        before = await connection.fetchrow(_READ_MEMBERSHIP, *ids, told.at)
        if before is not None and before["newer"]:
            return OUTDATED
        await connection.execute(_PUT_MEMBERSHIP, *ids, told.role, told.at)
        if before is None and not user["unseen"]:  # who was not seen yet comes in with their first request
            joined = self._announcements.joined(user_of(user), organization_of(organization), told.role, told.at)
            await enqueue(connection, *joined)
        events = membership_event(*ids, told.role, before["role"] if before is not None else None, origin)
        if not events:
            return Outcome("applied")
        await append(connection, *events)
        return Outcome("applied", (Changed(ids[0], pair[0], ids[1], closes=before is not None),))


async def _person(connection: Connection, clerk_id: str, told_at: datetime | None, name: str | None = None) -> Row:
    """Lock a person's row, made if there is none; `newer` compares with what is told now."""
    while True:
        row = await connection.fetchrow(_READ_USER, clerk_id, told_at)
        if row is not None:
            return row
        # It may be there by now; and, linked to another account, be gone again before it is read.
        await connection.execute(_INSERT_USER, new_id("usr"), clerk_id, name)


async def _person_gone(connection: Connection, gone: PersonGone, origin: Origin) -> Outcome:
    """Leave a tombstone, also of somebody we have not heard of: their created may be on its way, and their token."""
    clerk_id = gone.clerk_user_id
    await take_turn(connection, clerk_id)
    user = user_of(await _person(connection, clerk_id, None))
    if user.deleted_at is not None:
        return OUTDATED
    await erase(connection, user.id)
    left = [row["organization_id"] for row in await connection.fetch(_LEAVE_ALL, user.id)]
    await append(connection, *(Event("user.deleted", chain, origin, (user.id,)) for chain in left or [None]))
    return Outcome("applied", (Changed(user.id, clerk_id, closes=True),))


async def _organization_told(connection: Connection, told: OrganizationTold) -> Outcome:
    clerk_id = told.clerk_organization_id
    shown = told.name or clerk_id
    written = await connection.fetchval(_TELL_ORGANIZATION, new_id("org"), clerk_id, shown, told.at, told.name)
    return Outcome("applied") if written is not None else OUTDATED


async def _organization_gone(connection: Connection, gone: OrganizationGone, origin: Origin) -> Outcome:
    clerk_id = gone.clerk_organization_id
    await connection.execute(_INSERT_ORGANIZATION, new_id("org"), clerk_id, gone.name or clerk_id)
    row = await connection.fetchrow(_LOCK_ORGANIZATION, clerk_id)
    assert row is not None  # noqa: S101 - it was there, or is there now
    if row["deleted_at"] is not None:
        return OUTDATED
    organization_id = row["id"]
    await connection.execute(_DELETE_ORGANIZATION, organization_id)
    members = await connection.fetch(_EMPTY_ORGANIZATION, organization_id)
    facts = {"members": len(members)}
    await append(connection, Event("organization.deleted", organization_id, origin, (organization_id,), facts))
    changed = tuple(Changed(row["id"], row["clerk_id"], organization_id, closes=True) for row in members)
    return Outcome("applied", changed)


async def _membership_gone(connection: Connection, gone: MembershipGone, origin: Origin) -> Outcome:
    pair = gone.clerk_user_id, gone.clerk_organization_id
    await take_turn(connection, gone.clerk_user_id)
    await connection.execute(_NOTE_LEAVING, *pair, gone.at)
    row = await connection.fetchrow(_LEAVE, *pair, gone.at)
    if row is None:  # not heard of yet, gone already, or there again since
        return OUTDATED
    user_id, organization_id = row["user_id"], row["organization_id"]
    await append(connection, Event("membership.deleted", organization_id, origin, (user_id,), {"role": row["role"]}))
    return Outcome("applied", (Changed(user_id, pair[0], organization_id, closes=True),))


async def _chains(connection: Connection, user_id: str) -> Sequence[str | None]:
    """Give the organizations whose chains tell of a person; the gateway's own chain when there is none."""
    return [row["organization_id"] for row in await connection.fetch(_CHAINS, user_id)] or [None]
