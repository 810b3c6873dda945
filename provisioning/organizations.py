"""Organizations: reading them. Who belongs to one: `memberships.py`."""

from provisioning.database.pool import Database
from provisioning.records import Organization
from provisioning.rows import ORGANIZATION_COLUMNS, organization_of

_GET = f"SELECT {ORGANIZATION_COLUMNS} FROM organizations WHERE id = $1"  # noqa: S608 - column names of our own
_NAMED = f"SELECT {ORGANIZATION_COLUMNS} FROM organizations WHERE id = $1 OR clerk_id = $1"  # noqa: S608


class Organizations:
    """What can be asked of organizations we know. Raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, organization_id: str) -> Organization | None:
        """Read one organization by our id; None when there is none."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_GET, organization_id)
        return organization_of(row) if row else None

    async def named(self, word: str) -> Organization | None:
        """Read one organization by our id or Clerk's, never by its slug, which may pass on; None: there is none."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_NAMED, word)
        return organization_of(row) if row else None
