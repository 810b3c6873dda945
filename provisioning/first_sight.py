"""First sight: the rows of a proven subject that our records do not have yet, in one transaction.

Every transaction touches users, then organizations, then memberships, at most one row of each, then a token that nobody
knows yet, and the end of one audit chain at last: two of them can wait for each other's end, but never in a circle.
Nothing outside PostgreSQL is asked in here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncpg import Record as Row

from provisioning.audit import GATEWAY, Event, append
from provisioning.database.pool import Connection, Database
from provisioning.errors import OrganizationMissing
from provisioning.ids import new_id
from provisioning.new_tokens import FirstToken
from provisioning.profile import Profile, claimed, clean_name, personal_organization_name
from provisioning.records import Organization, Standing, Subject, User
from provisioning.rows import (
    ORGANIZATION_COLUMNS,
    STANDING_COLUMNS,
    USER_COLUMNS,
    organization_of,
    standing_of,
    user_of,
)

PERSONAL_ROLE = "admin"

_STANDING = f"""
    SELECT {STANDING_COLUMNS}
    FROM users u JOIN memberships m ON m.user_id = u.id JOIN organizations o ON o.id = m.organization_id
    WHERE u.clerk_id = $1
"""  # noqa: S608 - column names of our own, here and below
_FIND_IN_CLERK_ORGANIZATION = f"{_STANDING} AND o.clerk_id = $2"
_FIND_IN_PERSONAL_ORGANIZATION = f"{_STANDING} AND o.personal_owner_id = u.id"
_FIND_MANY = f"""
    SELECT w.place, {STANDING_COLUMNS}
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (person, organization, place)
    JOIN users u ON u.clerk_id = w.person JOIN memberships m ON m.user_id = u.id
    JOIN organizations o ON o.id = m.organization_id
     AND (o.clerk_id = w.organization OR (w.organization IS NULL AND o.personal_owner_id = u.id))
"""  # noqa: S608
_KNOWN = """
    SELECT EXISTS (SELECT FROM users WHERE clerk_id = $1) AS person,
           EXISTS (SELECT FROM organizations WHERE clerk_id = $2) AS organization
"""
_READ_USER = f"SELECT {USER_COLUMNS} FROM users WHERE clerk_id = $1"  # noqa: S608
_INSERT_USER = f"""
    INSERT INTO users (id, clerk_id, name, email) VALUES ($1, $2, $3, $4)
    ON CONFLICT (clerk_id) DO NOTHING RETURNING {USER_COLUMNS}
"""  # noqa: S608
_REFRESH_USER = f"""
    UPDATE users SET name = coalesce($2, name), email = coalesce($3, email), updated_at = now()
    WHERE clerk_id = $1 AND deleted_at IS NULL
      AND (name, email) IS DISTINCT FROM (coalesce($2, name), coalesce($3, email))
    RETURNING {USER_COLUMNS}
"""  # noqa: S608
_READ_CLERK_ORGANIZATION = f"SELECT {ORGANIZATION_COLUMNS} FROM organizations WHERE clerk_id = $1"  # noqa: S608
_INSERT_CLERK_ORGANIZATION = f"""
    INSERT INTO organizations (id, clerk_id, name) VALUES ($1, $2, $3)
    ON CONFLICT (clerk_id) DO NOTHING RETURNING {ORGANIZATION_COLUMNS}
"""  # noqa: S608
_READ_PERSONAL = f"SELECT {ORGANIZATION_COLUMNS} FROM organizations WHERE personal_owner_id = $1"  # noqa: S608
_INSERT_PERSONAL = f"""
    INSERT INTO organizations (id, personal_owner_id, name) VALUES ($1, $2, $3)
    ON CONFLICT (personal_owner_id) DO NOTHING RETURNING {ORGANIZATION_COLUMNS}
"""  # noqa: S608
_PUT_MEMBERSHIP = """
    INSERT INTO memberships (user_id, organization_id, role) VALUES ($1, $2, $3)
    ON CONFLICT (user_id, organization_id) DO UPDATE SET role = excluded.role, updated_at = now()
    WHERE memberships.role <> excluded.role
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
        created: Whether this transaction made the user.
    """

    standing: Standing
    created: bool


class FirstSight:
    """Finds subjects and writes what is missing. Every method raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(
        self, database: Database, *, personal_organizations: bool = True, first_token: FirstToken | None = None
    ) -> None:
        """Settle what is made.

        Args:
            database: Where.
            personal_organizations: Whether who names no Clerk organization gets one of their own.
            first_token: Makes an API token for every new user; None: none.
        """
        self._database = database
        self._personal_organizations = personal_organizations
        self._first_token = first_token

    async def find(self, clerk_user_id: str, clerk_organization_id: str | None) -> Standing | None:
        """Read a standing in one query; None when user, organization or membership are missing.

        Args:
            clerk_user_id: Clerk's `user_…`.
            clerk_organization_id: Clerk's `org_…`; None asks for the personal organization.

        Raises:
            OrganizationMissing: The personal organization is asked for, and those are off.
        """
        if clerk_organization_id is None and not self._personal_organizations:
            raise OrganizationMissing
        async with self._database.connection() as connection:
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
        async with self._database.connection() as connection:
            for row in await connection.fetch(_FIND_MANY, people, organizations):
                found[row["place"] - 1] = standing_of(row)
        return found

    async def known(self, subject: Subject) -> Known:
        """Tell which halves of the subject need no asking elsewhere."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_KNOWN, subject.clerk_user_id, subject.clerk_organization_id)
        assert row is not None  # noqa: S101 - a query without FROM has one row
        return Known(row["person"], subject.clerk_organization_id is None or row["organization"])

    async def provision(self, subject: Subject, profile: Profile, organization_name: str | None = None) -> Provisioned:
        """Make what is missing of user, organization and membership, all or nothing; who comes second reads.

        Only the transaction that makes the user makes the first API token, for the organization of this moment.

        A disabled user is given back as such, for the caller to refuse. So is a deleted one, whose standing is always
        the personal organization: nothing of the token is written for a tombstone.

        Args:
            subject: Proven by a verified credential.
            profile: For a new user; of a known one, only what the token's own claims say is taken over.
            organization_name: For a new Clerk organization; else its slug or Clerk's id serves.

        Raises:
            OrganizationMissing: No Clerk organization in the token, and personal ones are off.
        """
        if subject.clerk_organization_id is None and not self._personal_organizations:
            raise OrganizationMissing
        async with self._database.transaction() as connection:
            user, created = await _user(connection, subject, profile)
            if subject.clerk_organization_id is None or user.deleted_at is not None:
                role = PERSONAL_ROLE
                organization = await _personal_organization(connection, user)
            else:
                role = subject.organization_role
                organization = await _clerk_organization(connection, subject, organization_name)
            await connection.execute(_PUT_MEMBERSHIP, user.id, organization.id, role)
            if created:
                await self._welcome(connection, user, organization)
        return Provisioned(Standing(user, organization, role), created)

    async def _welcome(self, connection: Connection, user: User, organization: Organization) -> None:
        events = [Event("user.created", organization.id, GATEWAY, (user.id,))]
        if self._first_token is not None:
            events.append(await self._first_token.insert(connection, user.id, organization.id))
        await append(connection, *events)

    async def refresh_profile(self, subject: Subject) -> User | None:
        """Let name and e-mail follow the token's claims; None when there is nothing to follow."""
        claims = claimed(subject)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_REFRESH_USER, subject.clerk_user_id, claims.name, claims.email)
        return user_of(row) if row else None


async def _user(connection: Connection, subject: Subject, profile: Profile) -> tuple[User, bool]:
    """Read or make the user; true when this call made it."""
    claims = claimed(subject)
    row = await connection.fetchrow(_REFRESH_USER, subject.clerk_user_id, claims.name, claims.email)
    row = row or await connection.fetchrow(_READ_USER, subject.clerk_user_id)
    if row is not None:
        return user_of(row), False
    row = await connection.fetchrow(_INSERT_USER, new_id("usr"), subject.clerk_user_id, profile.name, profile.email)
    if row is not None:
        return user_of(row), True
    # Another transaction was first. It has committed, or the insertion would still be waiting for it; READ COMMITTED
    # lets this next statement see it.
    return user_of(_there(await connection.fetchrow(_READ_USER, subject.clerk_user_id))), False


def _there(row: Row | None) -> Row:
    """Insist on a row that was in the way of ours: rows of people and organizations are never deleted."""
    if row is None:
        raise RuntimeError("a row that conflicted is not there")
    return row


async def _clerk_organization(connection: Connection, subject: Subject, name: str | None) -> Organization:
    clerk_id = subject.clerk_organization_id
    row = await connection.fetchrow(_READ_CLERK_ORGANIZATION, clerk_id)
    if row is None:
        shown = clean_name(name) or clean_name(subject.organization_slug) or clerk_id
        row = await connection.fetchrow(_INSERT_CLERK_ORGANIZATION, new_id("org"), clerk_id, shown)
    if row is None:
        row = _there(await connection.fetchrow(_READ_CLERK_ORGANIZATION, clerk_id))
    return organization_of(row)


async def _personal_organization(connection: Connection, user: User) -> Organization:
    row = await connection.fetchrow(_READ_PERSONAL, user.id)
    if row is None:
        name = "Personal" if user.deleted_at else personal_organization_name(Profile(user.name, user.email))
        row = await connection.fetchrow(_INSERT_PERSONAL, new_id("org"), user.id, name)
    if row is None:
        row = _there(await connection.fetchrow(_READ_PERSONAL, user.id))
    return organization_of(row)
