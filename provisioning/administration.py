"""What administrators, operators and the settings do to people: their role, and whether they may call at all.

A role counts in every organization, so these events join the gateway's own chain. Locks are taken in one order, as
everywhere here: rows of people by id, the audit chain.
"""

from asyncpg import Record as Row

from provisioning.audit import GATEWAY, Event, Origin, append
from provisioning.database.pool import Connection, Database
from provisioning.errors import NoAdministrator, OwnAccount, UserEnded, UserMissing
from provisioning.ids import is_id
from provisioning.pages import LAST, Page, Place, page_of
from provisioning.profile import is_storable
from provisioning.records import Role, User
from provisioning.rows import USER_COLUMNS, user_of

HIGHEST_CHARACTER = "\U0010ffff"

_LIST = f"""
    SELECT {USER_COLUMNS} FROM users WHERE (created_at, id) < ($1, $2) ORDER BY created_at DESC, id DESC LIMIT $3
"""  # noqa: S608 - column names of our own, here and below
# The operators of text_pattern_ops: by bytes, so that an index finds what begins with an address.
_SEARCH = f"""
    SELECT {USER_COLUMNS} FROM users
    WHERE (id = $4 OR clerk_id = $4 OR (lower(email) ~>=~ lower($4) AND lower(email) ~<~ lower($5)))
      AND (created_at, id) < ($1, $2)
    ORDER BY created_at DESC, id DESC LIMIT $3
"""  # noqa: S608
# By ids, which never change: rows chosen by their role would stay locked when they have lost it meanwhile, and be left
# out of the result, and two who lock them in order would still meet in a circle. FOR NO KEY UPDATE: rows that refer to
# these do not wait.
_LOCK = f"""
    SELECT {USER_COLUMNS}, role_set_at FROM users WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE
"""  # noqa: S608
_SET_ROLE = f"""
    UPDATE users SET role = $2, role_set_at = now(), updated_at = now() WHERE id = $1 RETURNING {USER_COLUMNS}
"""  # noqa: S608
_PROMOTE = f"""
    UPDATE users SET role = 'ADMIN', updated_at = now()
    WHERE id = $1 AND role = 'USER' AND role_set_at IS NULL
      AND disabled_at IS NULL AND banned_at IS NULL AND deleted_at IS NULL
    RETURNING {USER_COLUMNS}
"""  # noqa: S608
_DISABLE = f"UPDATE users SET disabled_at = now(), updated_at = now() WHERE id = $1 RETURNING {USER_COLUMNS}"  # noqa: S608
_ENABLE = f"UPDATE users SET disabled_at = NULL, updated_at = now() WHERE id = $1 RETURNING {USER_COLUMNS}"  # noqa: S608


class Administration:
    """What can be done to people. Every method raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_of(self, search: str | None, after: Place | None, limit: int) -> Page[User]:
        """List people, tombstones too, those who came last first.

        Args:
            search: Our id, Clerk's id, or how an e-mail address begins, in any case; None: everybody.
            after: Where the page before ended; None: the first one.
            limit: Most people in this page, at least 1.
        """
        if search is not None and not is_storable(search):
            return Page(())
        place = after or LAST
        arguments: list[object] = [place.at, place.id, limit + 1]
        if search is not None:
            arguments += [search, search + HIGHEST_CHARACTER]
        async with self._database.connection() as connection:
            rows = await connection.fetch(_LIST if search is None else _SEARCH, *arguments)
        return page_of([user_of(row) for row in rows], limit, lambda user: Place(user.created_at, user.id))

    async def set_role(self, user_id: str, role: Role, origin: Origin, *, by: str | None) -> User:
        """Give a role by hand: from then on the settings leave this person's role alone.

        Args:
            user_id: Whose.
            role: USER or ADMIN.
            origin: For the audit event.
            by: The administrator who asks, `usr_…`; None: an operator, who may do anything.

        Raises:
            UserMissing: No such user.
            UserEnded: Only a tombstone.
            NoAdministrator: Who asks administers no more.
            OwnAccount: They would take their own rights away. So whoever asks stays, and there is always one.
        """
        if role is Role.SYSTEM:
            raise ValueError("SYSTEM belongs to system tokens and is never stored")
        async with self._database.transaction() as connection:
            row = await lock_person(connection, user_id, by, takes_away=role is not Role.ADMIN)
            user = user_of(row)
            if user.role is role and row["role_set_at"] is not None:
                return user
            changed = user_of(_there(await connection.fetchrow(_SET_ROLE, user_id, role.value)))
            await append(connection, _role_changed(user, changed, origin))
        return changed

    async def promote(self, user_id: str) -> User | None:
        """Make somebody an administrator whom the settings name; None when their role was set by hand, or cannot be.

        Args:
            user_id: Whose verified address is among `bootstrap.admin_emails`.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_PROMOTE, user_id)
            if row is None:
                return None
            event = {"before": Role.USER, "after": Role.ADMIN, "cause": "bootstrap.admin_emails"}
            await append(connection, Event("user.role_changed", None, GATEWAY, (user_id,), event))
        return user_of(row)

    async def disable(self, user_id: str, origin: Origin, *, by: str | None) -> User:
        """Refuse this person everything until they are enabled; errors and arguments as `set_role`."""
        async with self._database.transaction() as connection:
            user = user_of(await lock_person(connection, user_id, by, takes_away=True))
            if user.disabled_at is not None:
                return user
            disabled = user_of(_there(await connection.fetchrow(_DISABLE, user_id)))
            await append(connection, Event("user.disabled", None, origin, (user_id,)))
        return disabled

    async def enable(self, user_id: str, origin: Origin, *, by: str | None) -> User:
        """Let a disabled person call again; errors and arguments as `set_role`."""
        async with self._database.transaction() as connection:
            user = user_of(await lock_person(connection, user_id, by, takes_away=False))
            if user.disabled_at is None:
                return user
            enabled = user_of(_there(await connection.fetchrow(_ENABLE, user_id)))
            await append(connection, Event("user.enabled", None, origin, (user_id,)))
        return enabled


async def lock_person(connection: Connection, user_id: str, by: str | None, *, takes_away: bool) -> Row:
    """Lock a person's row, and that of the administrator who asks: they must be one in this moment, not lately."""
    if not is_id("usr", user_id):
        raise UserMissing
    found = {row["id"]: row for row in await connection.fetch(_LOCK, [user_id, by or user_id])}
    if by is not None:
        administrator = user_of(_there(found.get(by)))
        ended = administrator.disabled_at, administrator.banned_at, administrator.deleted_at
        if administrator.role is not Role.ADMIN or ended != (None, None, None):
            raise NoAdministrator
    row = _there(found.get(user_id))
    if row["deleted_at"] is not None:
        raise UserEnded
    if takes_away and by == user_id:
        raise OwnAccount
    return row


def _role_changed(before: User, after: User, origin: Origin) -> Event:
    facts = {"before": before.role, "after": after.role}
    return Event("user.role_changed", None, origin, (after.id,), facts)


def _there(row: Row | None) -> Row:
    if row is None:
        raise UserMissing
    return row
