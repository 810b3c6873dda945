"""Who may not go on: people who have something open, and whose rights or token are not what they opened it with."""

from collections.abc import Sequence
from dataclasses import dataclass

from provisioning.database.pool import Database
from provisioning.records import Role

_OVER = """
    SELECT w.person, w.organization, w.token, standing.over
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS w (person, organization, role, token)
    LEFT JOIN users u ON u.id = w.person
    LEFT JOIN memberships m ON m.user_id = w.person AND m.organization_id = w.organization
    LEFT JOIN api_tokens t ON t.id = w.token
    CROSS JOIN LATERAL (
        SELECT u.id IS NULL OR u.disabled_at IS NOT NULL OR u.banned_at IS NOT NULL OR u.deleted_at IS NOT NULL
            OR m.user_id IS NULL OR (u.role <> w.role) IS TRUE
    ) AS standing (over)
    WHERE standing.over
       OR w.token IS NOT NULL AND (t.id IS NULL OR t.revoked_at IS NOT NULL OR t.expires_at <= now())
"""


@dataclass(frozen=True, slots=True)
class Presence:
    """Somebody who has something open.

    Attributes:
        role: They opened it with; None: it does not count.
        token_id: `atk_…` they opened it with, or had its token minted by; None: no API token.
    """

    user_id: str
    organization_id: str
    role: Role | None
    token_id: str | None = None


@dataclass(frozen=True, slots=True)
class Over:
    """What may not go on.

    Attributes:
        token_id: Only what was opened with this API token; None: everything of the person in the organization.
    """

    user_id: str
    organization_id: str
    token_id: str | None


class Endings:
    """What can be asked of them. Raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, people: Sequence[Presence]) -> list[Over]:
        """Tell of people who are disabled, deleted, left or have another role, and of tokens that ended; one query."""
        users = [one.user_id for one in people]
        organizations = [one.organization_id for one in people]
        roles = [one.role.value if one.role is not None else None for one in people]
        tokens = [one.token_id for one in people]
        async with self._database.connection() as connection:
            rows = await connection.fetch(_OVER, users, organizations, roles, tokens)
        return [Over(row["person"], row["organization"], None if row["over"] else row["token"]) for row in rows]
