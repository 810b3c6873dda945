"""First sight: the rows of a proven subject that our records do not have yet, in one transaction.

Every transaction touches users, then organizations, then memberships, at most one row of each, then a token that nobody
knows yet, the organization's trial, the outbox, and the end of one audit chain at last: two of them can wait for each
other's end, but never in a circle. Before all of them it takes its person's turn (`persons.py`), which webhooks about
the same person take too: what is read of them stays so until the end. Nothing outside PostgreSQL is asked in here: what
has to happen elsewhere is left to the outbox.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from asyncpg import Record as Row

from provisioning.audit import GATEWAY, Event, Origin, append
from provisioning.database.pool import Connection, Database
from provisioning.errors import MembershipEnded, OrganizationMissing
from provisioning.ids import new_id
from provisioning.memberships import membership_event, put_membership
from provisioning.new_tokens import FirstToken
from provisioning.outbox.announcements import NOBODY, Announcements
from provisioning.outbox.effects import Effect
from provisioning.outbox.queue import enqueue
from provisioning.persons import link, linked_event, take_turn
from provisioning.profile import Profile, claimed, clean_name, personal_organization_name
from provisioning.records import Organization, Standing, Subject, Subscription, User
from provisioning.rows import (
    ORGANIZATION_COLUMNS,
    STANDING_COLUMNS,
    SUBSCRIPTION_OF_ORGANIZATION,
    USER_COLUMNS,
    organization_of,
    standing_of,
    user_of,
)
from provisioning.subscriptions import Trials, current_subscription, started

PERSONAL_ROLE = "admin"
_NEVER = datetime.fromtimestamp(0, UTC)
NOWHERE = Organization("", None, "", _NEVER, _NEVER)
"""Where a tombstone stands; no row of ours."""

_STANDING = f"""
    SELECT {STANDING_COLUMNS}
    FROM users u JOIN memberships m ON m.user_id = u.id JOIN organizations o ON o.id = m.organization_id
    {SUBSCRIPTION_OF_ORGANIZATION}
    WHERE u.clerk_id = $1 AND NOT u.unseen
"""  # noqa: S608 - column names of our own, here and below
_FIND_IN_CLERK_ORGANIZATION = f"{_STANDING} AND o.clerk_id = $2"
_FIND_IN_PERSONAL_ORGANIZATION = f"{_STANDING} AND o.personal_owner_id = u.id"
_FIND_MANY = f"""
    SELECT w.place, {STANDING_COLUMNS}
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (person, organization, place)
    JOIN users u ON u.clerk_id = w.person AND NOT u.unseen JOIN memberships m ON m.user_id = u.id
    JOIN organizations o ON o.id = m.organization_id
     AND (o.clerk_id = w.organization OR (w.organization IS NULL AND o.personal_owner_id = u.id))
    {SUBSCRIPTION_OF_ORGANIZATION}
"""  # noqa: S608
_KNOWN = """
    SELECT EXISTS (SELECT FROM users WHERE clerk_id = $1 AND NOT (unseen AND clerk_updated_at IS NULL)) AS person,
           EXISTS (SELECT FROM organizations WHERE clerk_id = $2) AS organization
"""
_READ_USER = f"SELECT {USER_COLUMNS}, unseen FROM users WHERE clerk_id = $1"  # noqa: S608
_INSERT_USER = f"""
    INSERT INTO users (id, clerk_id, name, email, verified_email) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (clerk_id) DO NOTHING RETURNING {USER_COLUMNS}
"""  # noqa: S608
# Webhooks told of them before. Their word stays; the profile fills what it left open.
_WELCOME_USER = f"""
    UPDATE users SET unseen = false, name = coalesce(name, $2), email = coalesce(email, $3), updated_at = now()
    WHERE clerk_id = $1 AND unseen AND deleted_at IS NULL RETURNING {USER_COLUMNS}
"""  # noqa: S608
_REFRESH_USER = f"""
    UPDATE users SET name = coalesce($2, name), email = coalesce($3, email), updated_at = now()
    WHERE clerk_id = $1 AND deleted_at IS NULL
      AND (name, email) IS DISTINCT FROM (coalesce($2, name), coalesce($3, email))
    RETURNING {USER_COLUMNS}
"""  # noqa: S608
# Its deletion waits for who holds the row, and who waits for the deletion reads the tombstone.
_READ_CLERK_ORGANIZATION = f"""
    SELECT {ORGANIZATION_COLUMNS}, deleted_at FROM organizations WHERE clerk_id = $1 FOR KEY SHARE
"""  # noqa: S608
_INSERT_CLERK_ORGANIZATION = f"""
    INSERT INTO organizations (id, clerk_id, name) VALUES ($1, $2, $3)
    ON CONFLICT (clerk_id) DO NOTHING RETURNING {ORGANIZATION_COLUMNS}, deleted_at
"""  # noqa: S608
READ_PERSONAL = f"SELECT {ORGANIZATION_COLUMNS} FROM organizations WHERE personal_owner_id = $1"  # noqa: S608
_INSERT_PERSONAL = f"""
    INSERT INTO organizations (id, personal_owner_id, name) VALUES ($1, $2, $3)
    ON CONFLICT (personal_owner_id) DO NOTHING RETURNING {ORGANIZATION_COLUMNS}
"""  # noqa: S608
# A token of before does not bring its person back. One whose time is unknown proves nothing of after.
_LEFT = """
    SELECT EXISTS (SELECT FROM departures
                   WHERE clerk_user_id = $1 AND clerk_organization_id = $2
                     AND coalesce(left_at >= to_timestamp($3::float8), true))
       AND NOT EXISTS (SELECT FROM memberships WHERE user_id = $4 AND organization_id = $5)
"""


@dataclass(frozen=True, slots=True)
class Known:
    """Which halves of a subject our records have."""

    person: bool
    organization: bool


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What one provisioning came to.

    Attributes:
        created: Whether this transaction is the first to see the user.
    """

    standing: Standing
    created: bool


@dataclass(frozen=True, slots=True)
class _Found:
    """A user, and whether this transaction is the first to see them.

    Attributes:
        linked: The Clerk id their row had until now; None: it is not linked here.
    """

    user: User
    first_seen: bool
    linked: str | None = None


class FirstSight:
    """Finds subjects and writes what is missing. Every method raises `DatabaseUnavailable` while PostgreSQL is away.

    Attributes:
        link_verified_email: As settled.
    """

    def __init__(
        self,
        database: Database,
        *,
        personal_organizations: bool = True,
        first_token: FirstToken | None = None,
        announcements: Announcements = NOBODY,
        trials: Trials | None = None,
        link_verified_email: bool = False,
    ) -> None:
        """Settle what is made.

        Args:
            database: Where.
            personal_organizations: Whether who names no Clerk organization gets one of their own.
            first_token: Makes an API token for every new user; None: none.
            announcements: Whom the outbox is to tell.
            trials: Makes a subscription for every organization that never had one; None: none.
            link_verified_email: Whether who is new with an address that Clerk verified gets the row that has the same.
        """
        self.database = database
        self.personal_organizations = personal_organizations
        self.first_token = first_token
        self.announcements = announcements
        self.trials = trials
        self.link_verified_email = link_verified_email

    async def find(self, clerk_user_id: str, clerk_organization_id: str | None) -> Standing | None:
        """Read a standing in one query; None when user, organization or membership are missing, or only told of.

        Args:
            clerk_user_id: Clerk's `user_…`.
            clerk_organization_id: Clerk's `org_…`; None asks for the personal organization.

        Raises:
            OrganizationMissing: The personal organization is asked for, and those are off.
        """
        if clerk_organization_id is None and not self.personal_organizations:
            raise OrganizationMissing
        async with self.database.connection() as connection:
            if clerk_organization_id is None:
                row = await connection.fetchrow(_FIND_IN_PERSONAL_ORGANIZATION, clerk_user_id)
            else:
                row = await connection.fetchrow(_FIND_IN_CLERK_ORGANIZATION, clerk_user_id, clerk_organization_id)
        return standing_of(row) if row else None

    async def find_many(self, subjects: Sequence[Subject]) -> list[Standing | None]:
        """Read many standings in one query, in the order asked for; None as in `find`."""
        found: list[Standing | None] = [None] * len(subjects)
        people = [subject.clerk_user_id for subject in subjects]
        organizations = [subject.clerk_organization_id for subject in subjects]
        async with self.database.connection() as connection:
            for row in await connection.fetch(_FIND_MANY, people, organizations):
                found[row["place"] - 1] = standing_of(row)
        return found

    async def known(self, subject: Subject) -> Known:
        """Tell which halves of the subject need no asking elsewhere."""
        async with self.database.connection() as connection:
            row = await connection.fetchrow(_KNOWN, subject.clerk_user_id, subject.clerk_organization_id)
        assert row is not None  # noqa: S101 - a query without FROM has one row
        return Known(row["person"], subject.clerk_organization_id is None or row["organization"])

    async def provision(
        self,
        subject: Subject,
        profile: Profile,
        organization_name: str | None = None,
        *,
        profile_unknown: bool = False,
        origin: Origin = GATEWAY,
    ) -> Provisioned:
        """Make what is missing of user, organization and membership, all or nothing; who comes second reads.

        Only the transaction that first sees the user makes the first API token, for the organization of this moment;
        a row that webhooks made before changes nothing of that.

        A disabled user is given back as such, for the caller to refuse. So is a deleted one, in no organization:
        nothing is written for a tombstone.

        Args:
            subject: Proven by a verified credential.
            profile: For a new user; of a known one, only what the token's own claims say is taken over.
            organization_name: For a new Clerk organization; else its slug or Clerk's id serves.
            profile_unknown: Clerk was asked for the profile and did not tell: a new user's is synced later.
            origin: Where the subject was seen, for the audit events.

        Raises:
            MembershipEnded: Webhooks told that the person left the token's organization after it was made, or that it
                was deleted.
            OrganizationMissing: No Clerk organization in the token, and personal ones are off.
        """
        if subject.clerk_organization_id is None and not self.personal_organizations:
            raise OrganizationMissing
        async with self.database.transaction() as connection:
            await take_turn(connection, subject.clerk_user_id)
            found = await self._user(connection, subject, profile)
            user, created = found.user, found.first_seen
            if user.deleted_at is not None:
                return Provisioned(Standing(user, NOWHERE, ""), created=False)
            if subject.clerk_organization_id is None:
                role, issued_at = PERSONAL_ROLE, None
                organization = await personal_organization(connection, user)
            else:
                role, issued_at = subject.organization_role, subject.issued_at
                organization = await _clerk_organization(connection, user, subject, organization_name)
            membership = await put_membership(connection, user.id, organization.id, role, issued_at)
            before = membership["before"]
            trial = await self._trial(connection, user, organization)
            subscription = trial or await current_subscription(connection, organization.id)
            if created:
                events, told = await self._welcome(connection, user, organization, trial, origin)
            else:
                events = list(membership_event(user.id, organization.id, membership["role"], before, origin))
                told = self._follow(user, organization, trial, role if before is None else None)
            if found.linked is not None:
                events.insert(0, linked_event(user, found.linked, organization.id, origin))
            if trial is not None:
                events.append(started(trial, user.id, origin))
            if profile_unknown and created:
                told = (*told, *self.announcements.profile_unknown(user))
            await enqueue(connection, *told)
            if events:
                await append(connection, *events)
        standing = Standing(user, organization, membership["role"], subscription, membership["told_at"])
        return Provisioned(standing, created)

    def owes_trial(self, standing: Standing) -> bool:
        """Tell whether `provision` would make a trial: whoever made the organization's row, it is made once."""
        return self.trials is not None and standing.subscription is None and may_start_trial(standing.user)

    async def _welcome(
        self,
        connection: Connection,
        user: User,
        organization: Organization,
        trial: Subscription | None,
        origin: Origin,
    ) -> tuple[list[Event], tuple[Effect, ...]]:
        """What is recorded and told of a new person."""
        events = [Event("user.created", organization.id, origin, (user.id,))]
        if self.first_token is not None:
            events.append(await self.first_token.insert(connection, user.id, organization.id, origin))
        return events, self.announcements.new_user(user, organization, trial)

    def _follow(
        self, user: User, organization: Organization, trial: Subscription | None, role: str | None
    ) -> tuple[Effect, ...]:
        """What is told of a known person: `role`, if they joined."""
        if user.deleted_at is not None:
            return ()
        joined = self.announcements.joined(user, organization, role) if role is not None else ()
        began = self.announcements.trial_started(user, organization, trial) if trial is not None else ()
        return (*joined, *began)

    async def _trial(self, connection: Connection, user: User, organization: Organization) -> Subscription | None:
        if self.trials is None or not may_start_trial(user):
            return None
        return await self.trials.start(connection, organization.id)

    async def _user(self, connection: Connection, subject: Subject, profile: Profile) -> _Found:
        """Read, link or make the user."""
        clerk_id, claims, linked = subject.clerk_user_id, claimed(subject), None
        row = await connection.fetchrow(_READ_USER, clerk_id)
        if row is None and self.link_verified_email:
            linked = await link(connection, profile.verified_email, clerk_id)
            row = await connection.fetchrow(_READ_USER, clerk_id) if linked is not None else None
        told = profile.name, profile.email, profile.verified_email
        while row is None:
            row = await connection.fetchrow(_INSERT_USER, new_id("usr"), clerk_id, *told)
            if row is not None:
                return _Found(user_of(row), first_seen=True)
            # Somebody who takes no turns was first, and has committed; READ COMMITTED lets this next statement see it,
            # unless that row was linked to another account since.
            row = await connection.fetchrow(_READ_USER, clerk_id)
        if row["deleted_at"] is not None:
            return _Found(user_of(row), first_seen=False)
        changed = first_seen = None
        if row["unseen"]:
            changed = first_seen = await connection.fetchrow(_WELCOME_USER, clerk_id, profile.name, profile.email)
        elif (claims.name, claims.email) != (None, None):
            changed = await connection.fetchrow(_REFRESH_USER, clerk_id, claims.name, claims.email)
        return _Found(user_of(changed or row), first_seen is not None, linked)

    async def find_organization(self, clerk_organization_id: str) -> Organization | None:
        """Read one organization of Clerk's; None when nobody of it was seen, nor a key of its own.

        Raises:
            MembershipEnded: It was deleted.
        """
        async with self.database.connection() as connection:
            row = await connection.fetchrow(_READ_CLERK_ORGANIZATION, clerk_organization_id)
        return _living(row, "") if row else None

    async def provision_organization(self, clerk_organization_id: str, name: str | None) -> Organization:
        """Make an organization that one of its own API keys speaks for, without anybody in it; who comes second reads.

        Args:
            clerk_organization_id: Proven by the key.
            name: As Clerk tells it; else Clerk's id serves.

        Raises:
            MembershipEnded: It was deleted.
        """
        async with self.database.transaction() as connection:
            return await _organization(connection, Subject("", clerk_organization_id), name, "")


def may_start_trial(user: User) -> bool:
    """Who is refused starts nothing for others."""
    return user.deleted_at is None and user.disabled_at is None and user.banned_at is None


def _there(row: Row | None) -> Row:
    """Insist on a row that was in the way of ours: rows of people and organizations are never deleted."""
    if row is None:
        raise RuntimeError("a row that conflicted is not there")
    return row


async def _clerk_organization(connection: Connection, user: User, subject: Subject, name: str | None) -> Organization:
    clerk_id = subject.clerk_organization_id
    organization = await _organization(connection, subject, name, user.id)
    if await connection.fetchval(_LEFT, user.clerk_id, clerk_id, subject.issued_at, user.id, organization.id):
        raise MembershipEnded("organization_left", user.id, organization.id)
    return organization


async def _organization(connection: Connection, subject: Subject, name: str | None, user_id: str) -> Organization:
    clerk_id = subject.clerk_organization_id
    row = await connection.fetchrow(_READ_CLERK_ORGANIZATION, clerk_id)
    if row is None:
        shown = clean_name(name) or clean_name(subject.organization_slug) or clerk_id
        row = await connection.fetchrow(_INSERT_CLERK_ORGANIZATION, new_id("org"), clerk_id, shown)
    if row is None:
        row = _there(await connection.fetchrow(_READ_CLERK_ORGANIZATION, clerk_id))
    return _living(row, user_id)


def _living(row: Row, user_id: str) -> Organization:
    if row["deleted_at"] is not None:
        raise MembershipEnded("organization_deleted", user_id, row["id"])
    return organization_of(row)


async def personal_organization(connection: Connection, user: User) -> Organization:
    """Read or make the organization that is this person's own."""
    row = await connection.fetchrow(READ_PERSONAL, user.id)
    if row is None:
        name = personal_organization_name(Profile(user.name, user.email))
        row = await connection.fetchrow(_INSERT_PERSONAL, new_id("org"), user.id, name)
    if row is None:
        row = _there(await connection.fetchrow(READ_PERSONAL, user.id))
    return organization_of(row)
