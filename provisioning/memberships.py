"""Memberships: who belongs where, read from either side. Roles in them are Clerk's without `org:`."""

from dataclasses import dataclass, field
from datetime import datetime

from asyncpg import Record

from provisioning.audit import Event, Origin
from provisioning.database.pool import Connection, Database
from provisioning.pages import FIRST, Page, Place, page_of
from provisioning.records import Standing
from provisioning.rows import STANDING_COLUMNS, SUBSCRIPTION_OF_ORGANIZATION, standing_of

_OF_USER = f"""
    SELECT {STANDING_COLUMNS}
    FROM users u JOIN memberships m ON m.user_id = u.id JOIN organizations o ON o.id = m.organization_id
    {SUBSCRIPTION_OF_ORGANIZATION}
    WHERE u.id = $1
    ORDER BY o.personal_owner_id IS NULL, o.created_at, o.id
"""  # noqa: S608 - column names of our own
_OF_ORGANIZATION = """
    SELECT u.id, u.name, u.email, m.role, m.created_at
    FROM memberships m JOIN users u ON u.id = m.user_id
    WHERE m.organization_id = $1 AND u.deleted_at IS NULL AND (m.created_at, m.user_id) > ($2, $3)
    ORDER BY m.created_at, m.user_id LIMIT $4
"""
# The row follows the token unless Clerk told us something newer, which then counts for that token as well.
_PUT = """
    WITH known AS (SELECT role FROM memberships WHERE user_id = $1 AND organization_id = $2)
    INSERT INTO memberships (user_id, organization_id, role, told_at) VALUES ($1, $2, $3, to_timestamp($4::float8))
    ON CONFLICT (user_id, organization_id) DO UPDATE
        SET role = excluded.role, told_at = coalesce(excluded.told_at, memberships.told_at), updated_at = now()
    WHERE memberships.role <> excluded.role
      AND (memberships.told_at IS NULL OR memberships.told_at <= excluded.told_at)
    RETURNING role, told_at, (SELECT role FROM known) AS before
"""
_READ = """
    SELECT role, told_at, role AS before FROM memberships WHERE user_id = $1 AND organization_id = $2
"""


@dataclass(frozen=True, slots=True)
class Member:
    """A person in an organization, as others in it may see them.

    Attributes:
        user_id: `usr_…`.
        role: In the organization, without `org:`.
        since: When we first saw them there.
        email: For the organization's administrators.
    """

    user_id: str
    name: str | None
    role: str
    since: datetime
    email: str | None = field(default=None, repr=False)


class Memberships:
    """What can be asked of who belongs where. Raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_user(self, user_id: str) -> tuple[Standing, ...]:
        """List the organizations this user belongs to, the personal one first, then the oldest; () when unknown."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_OF_USER, user_id)
        return tuple(standing_of(row) for row in rows)

    async def of_organization(self, organization_id: str, after: Place | None, limit: int) -> Page[Member]:
        """List the members of one organization, tombstones left out, the oldest membership first.

        Args:
            organization_id: `org_…` of ours.
            after: Where the page before ended; None: the first one.
            limit: Most members in this page, at least 1.
        """
        place = after or FIRST
        async with self._database.connection() as connection:
            rows = await connection.fetch(_OF_ORGANIZATION, organization_id, place.at, place.id, limit + 1)
        members = [Member(row["id"], row["name"], row["role"], row["created_at"], row["email"]) for row in rows]
        return page_of(members, limit, lambda member: Place(member.since, member.user_id))


def membership_event(
    user_id: str, organization_id: str, role: str, before: str | None, origin: Origin
) -> tuple[Event, ...]:
    """Put into words that somebody joined, or has another role; nothing when all is as it was."""
    if before == role:
        return ()
    action = "membership.created" if before is None else "membership.role_changed"
    facts = {"role": role} if before is None else {"role": role, "before": before}
    return (Event(action, organization_id, origin, (user_id,), facts),)


async def put_membership(
    connection: Connection, user_id: str, organization_id: str, role: str, issued_at: float | None
) -> Record:
    """Let a row follow what a token says, unless it knows of something later.

    Args:
        connection: In the transaction that took this person's turn.
        user_id: `usr_…`.
        organization_id: `org_…` of ours.
        role: Without `org:`.
        issued_at: Unix seconds, when that was so; None: unknown.

    Returns:
        `role` and `told_at`, as they stand now; `before`: the role until now, None for who was not there.
    """
    row = await connection.fetchrow(_PUT, user_id, organization_id, role, issued_at)
    if row is None:
        row = await connection.fetchrow(_READ, user_id, organization_id)
    assert row is not None  # noqa: S101 - it was there, or is there now
    return row
