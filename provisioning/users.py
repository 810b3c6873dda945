"""People: reading them, and their own settings."""

from collections.abc import Mapping
from typing import Any

import asyncpg
import orjson

from provisioning.database.pool import Database
from provisioning.errors import SettingsInvalid, SettingsTooLarge, UserMissing
from provisioning.records import Standing, User
from provisioning.rows import STANDING_COLUMNS, USER_COLUMNS, standing_of, user_of

SETTINGS_BYTES = 64 * 1024  # as PostgreSQL prints the object; the table's constraint says the same

_GET = f"SELECT {USER_COLUMNS} FROM users WHERE id = $1"  # noqa: S608 - column names of our own
_NAMED = f"SELECT {USER_COLUMNS} FROM users WHERE id = $1 OR clerk_id = $1"  # noqa: S608 - column names of our own
_MERGE = f"""
    UPDATE users SET settings = (settings || $2::jsonb) - $3::text[], updated_at = now()
    WHERE id = $1 AND deleted_at IS NULL
    RETURNING {USER_COLUMNS}
"""  # noqa: S608 - column names of our own
_ORGANIZATIONS = f"""
    SELECT {STANDING_COLUMNS}
    FROM users u JOIN memberships m ON m.user_id = u.id JOIN organizations o ON o.id = m.organization_id
    WHERE u.id = $1
    ORDER BY o.personal_owner_id IS NULL, o.created_at, o.id
"""  # noqa: S608 - column names of our own


class Users:
    """What can be asked of people we know. Every method raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: str) -> User | None:
        """Read one user, tombstones too; None when there is none."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_GET, user_id)
        return user_of(row) if row else None

    async def named(self, word: str) -> User | None:
        """Read one user by our id or by Clerk's, for operators; None when there is none."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_NAMED, word)
        return user_of(row) if row else None

    async def merge_settings(self, user_id: str, patch: Mapping[str, Any]) -> User:
        """Lay `patch` over the settings, first level only; a null takes its key away. One statement, so none is lost.

        Raises:
            SettingsInvalid: The patch holds what cannot be kept: U+0000, a lone surrogate, an integer over 64 bits.
            SettingsTooLarge: The result would be over `SETTINGS_BYTES`.
            UserMissing: No such user.
        """
        changes = {key: value for key, value in patch.items() if value is not None}
        removals = [key for key, value in patch.items() if value is None]
        try:
            text = orjson.dumps(changes).decode()
            "".join(removals).encode()
        except (TypeError, UnicodeEncodeError) as error:
            raise SettingsInvalid from error
        if len(text) > SETTINGS_BYTES:
            raise SettingsTooLarge
        kept = [key for key in removals if "\0" not in key]  # a key that no object here can have
        try:
            async with self._database.connection() as connection:
                row = await connection.fetchrow(_MERGE, user_id, text, kept)
        except (asyncpg.UntranslatableCharacterError, asyncpg.StatementTooComplexError) as error:
            raise SettingsInvalid from error
        except asyncpg.CheckViolationError as error:
            raise SettingsTooLarge from error
        if row is None:
            raise UserMissing
        return user_of(row)

    async def organizations_of(self, user_id: str) -> tuple[Standing, ...]:
        """List the organizations this user belongs to, the personal one first, then the oldest; () when unknown."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_ORGANIZATIONS, user_id)
        return tuple(standing_of(row) for row in rows)
