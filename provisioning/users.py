"""People: reading them, and their own settings."""

from collections.abc import Mapping
from typing import Any

import asyncpg
import orjson

from provisioning.database.pool import Database
from provisioning.errors import SettingsInvalid, SettingsTooLarge, UserMissing
from provisioning.profile import is_storable
from provisioning.records import User
from provisioning.rows import USER_COLUMNS, user_of

SETTINGS_BYTES = 64 * 1024  # as PostgreSQL prints the object; the table's constraint says the same
MATCHES = 20  # an address may be several people's; whoever asks wants one of them

_GET = f"SELECT {USER_COLUMNS} FROM users WHERE id = $1"  # noqa: S608 - column names of our own
_NAMED = f"SELECT {USER_COLUMNS} FROM users WHERE id = $1 OR clerk_id = $1"  # noqa: S608 - column names of our own
_MERGE = f"""
    UPDATE users SET settings = (settings || $2::jsonb) - $3::text[], updated_at = now()
    WHERE id = $1 AND deleted_at IS NULL
    RETURNING {USER_COLUMNS}
"""  # noqa: S608 - column names of our own
# One index for each of them; the same with OR would read the whole table.
_MATCHING = f"""
    SELECT {USER_COLUMNS} FROM users
    WHERE id IN (SELECT id FROM users WHERE id = $1 UNION ALL SELECT id FROM users WHERE clerk_id = $1
                 UNION ALL SELECT id FROM users WHERE lower(email) = lower($1)
                 UNION ALL SELECT user_id FROM api_tokens WHERE id = $1
                 UNION ALL SELECT user_id FROM api_tokens WHERE public_id = $1)
    ORDER BY created_at, id LIMIT {MATCHES}
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

    async def matching(self, word: str) -> tuple[User, ...]:
        """Find people by our id, Clerk's, an e-mail address in any case, or an API token's id or public id.

        For operators: several people may have one address, and nobody proved it. Up to `MATCHES` of them.
        """
        if not is_storable(word):
            return ()
        async with self._database.connection() as connection:
            rows = await connection.fetch(_MATCHING, word)
        return tuple(user_of(row) for row in rows)

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
