"""API tokens: making them, changing them, ending them, and finding one by what it says of itself.

Only a SHA-256 of a token is stored. Every change writes an audit event in its own transaction. Locks are taken in one
order, as everywhere here: the owner's row, the token's, the audit chain. What others do to a person or a membership
meanwhile is not waited for: every use of a token looks at them again.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog
from asyncpg import Record as Row

from provisioning.audit import Event, Origin, append
from provisioning.database.pool import Connection, Database
from provisioning.errors import (
    OwnerUnfit,
    SealBroken,
    SecretGone,
    TokenEnded,
    TokenExpiryInvalid,
    TokenLimitReached,
    TokenMissing,
    TokenNameInvalid,
)
from provisioning.ids import is_id
from provisioning.makers import Maker, as_of_now
from provisioning.new_tokens import Draft, MadeToken, insert, told
from provisioning.profile import folded_line
from provisioning.records import ApiToken, FoundToken, Role
from provisioning.rows import (
    API_TOKEN_COLUMNS,
    STANDING_COLUMNS,
    SUBSCRIPTION_OF_ORGANIZATION,
    api_token_of,
    found_token_of,
)
from provisioning.sealing import Sealer
from provisioning.token_rules import Expiry, TokenRules, check_gift

NAME_LENGTH = 100
DEFAULT_OVERLAP_S = 3600.0
MAX_OVERLAP_S = 7 * 86400.0
LISTED = 500  # far above any sensible `tokens.per_user`; ended ones come last
_log = structlog.get_logger(__name__)

_FOUND = f"""
    SELECT {API_TOKEN_COLUMNS}, t.digest AS token_digest, {STANDING_COLUMNS}
    FROM api_tokens t JOIN users u ON u.id = t.user_id JOIN organizations o ON o.id = t.organization_id
         LEFT JOIN memberships m ON m.user_id = t.user_id AND m.organization_id = t.organization_id
         {SUBSCRIPTION_OF_ORGANIZATION}
"""  # noqa: S608 - column names of our own, here and below
_FIND, _FIND_BY_ID = f"{_FOUND} WHERE t.public_id = $1", f"{_FOUND} WHERE t.id = $1"
_LIST = f"""
    SELECT {API_TOKEN_COLUMNS} FROM api_tokens t
    WHERE t.user_id = $1 AND ($2::text IS NULL OR t.organization_id = $2)
    ORDER BY t.revoked_at IS NOT NULL OR coalesce(t.expires_at <= now(), false), t.created_at DESC, t.id LIMIT {LISTED}
"""  # noqa: S608
_MINE = "t.id = $1 AND t.user_id = $2 AND t.organization_id = $3"
_GET = f"SELECT {API_TOKEN_COLUMNS} FROM api_tokens t WHERE {_MINE}"  # noqa: S608
# FOR NO KEY UPDATE, here and below: rows that refer to this one do not wait for it.
_LOCK_OWNER = "SELECT role, disabled_at, banned_at, deleted_at FROM users WHERE id = $1 FOR NO KEY UPDATE"
_ROOM = """
    SELECT EXISTS (SELECT FROM memberships WHERE user_id = $1 AND organization_id = $2) AS belongs,
           (SELECT count(*) FROM api_tokens
            WHERE user_id = $1 AND revoked_at IS NULL AND replaced_by IS NULL
              AND (expires_at IS NULL OR expires_at > now())) AS live
"""
_LOCK = f"""
    SELECT {API_TOKEN_COLUMNS}, t.sealed_secret, t.expires_at <= now() AS expired,
           u.role, u.disabled_at, u.banned_at, u.deleted_at, m.user_id IS NOT NULL AS belongs
    FROM api_tokens t JOIN users u ON u.id = t.user_id
         LEFT JOIN memberships m ON m.user_id = t.user_id AND m.organization_id = t.organization_id
    WHERE {_MINE} FOR NO KEY UPDATE OF t
"""  # noqa: S608
_CHANGE = f"""
    UPDATE api_tokens t SET name = $2, scopes = $3 WHERE t.id = $1 RETURNING {API_TOKEN_COLUMNS}
"""  # noqa: S608
_REPLACE = f"""
    UPDATE api_tokens t SET replaced_by = $2, expires_at = least(t.expires_at, $3),
                            sealed_secret = NULL, sealed_until = NULL
    WHERE t.id = $1 RETURNING {API_TOKEN_COLUMNS}
"""  # noqa: S608 - least() passes over NULL, which is never
_END_REPLACED = "UPDATE api_tokens SET expires_at = $2 WHERE replaced_by = $1 AND expires_at > $2 RETURNING id"
_REVOKE = f"""
    UPDATE api_tokens t SET revoked_at = now(), sealed_secret = NULL, sealed_until = NULL
    WHERE t.id = $1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
    RETURNING {API_TOKEN_COLUMNS}
"""  # noqa: S608
_BY_ID = f"SELECT {API_TOKEN_COLUMNS} FROM api_tokens t WHERE t.id = $1"  # noqa: S608
_BY_TEXT = f"SELECT {API_TOKEN_COLUMNS} FROM api_tokens t WHERE t.public_id = $1 AND t.digest = $2"  # noqa: S608
_ERASE = f"""
    UPDATE api_tokens t SET sealed_secret = NULL, sealed_until = NULL WHERE t.id = $1 RETURNING {API_TOKEN_COLUMNS}
"""  # noqa: S608


class Tokens:
    """What can be done with API tokens. Every method raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(self, database: Database, sealer: Sealer | None, rules: TokenRules) -> None:
        """Settle what tokens may be.

        Args:
            database: Where they are.
            sealer: For `new_tokens.ONE_TIME_SECRETS`; None: nothing can be revealed.
            rules: Of the settings.
        """
        self._database = database
        self._sealer = sealer
        self._rules = rules

    async def find(self, public_id: str) -> FoundToken | None:
        """Read a token and its owner's state now, in one query; None when there is no such token.

        Nothing is judged: compare the digest first (`TokenText.matches`, also with None), then ask
        `token_rules.unusable`, and let it act with `token_rules.held` of its scopes alone.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_FIND, public_id)
        return found_token_of(row) if row else None

    async def find_by_id(self, token_id: str) -> FoundToken | None:
        """The same for a token known by its id, without its text: what was minted from it asks."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_FIND_BY_ID, token_id)
        return found_token_of(row) if row else None

    async def list_of(self, user_id: str, organization_id: str | None = None) -> tuple[ApiToken, ...]:
        """List a person's tokens: those that live, newest first, then those that ended up to 30 days ago.

        Args:
            user_id: Whose.
            organization_id: Only those of this organization; None: all.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(_LIST, user_id, organization_id)
        return tuple(api_token_of(row) for row in rows)

    async def get(self, maker: Maker, token_id: str) -> ApiToken:
        """Read one token.

        Raises:
            TokenMissing: There is none, or none of the maker's.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_GET, *_reach(maker, token_id))
        if row is None:
            raise TokenMissing
        return api_token_of(row)

    async def create(
        self,
        maker: Maker,
        name: str,
        scopes: Sequence[str],
        expires_at: datetime | Expiry | None = Expiry.DEFAULT,
    ) -> MadeToken:
        """Make a token for the maker's user and organization.

        Args:
            maker: Who asks.
            name: 1 to 100 characters once controls and white space are folded.
            scopes: May be empty: such a token passes routes that demand none.
            expires_at: An aware moment; None: never; default: after `tokens.default_life`.

        Raises:
            TokenNameInvalid: The name is empty or too long.
            ScopesUnknown: Scopes that do not exist.
            ScopesExceeded: Scopes that the maker does not hold.
            TokenExpiryInvalid: Past, too late, or never where that is not allowed.
            TokenLimitReached: The owner has `tokens.per_user` of them.
            OwnerUnfit: The owner is deleted, disabled, or left the organization.
            MakerEnded: The token that asks has ended; everything that changes something raises this.
        """
        now = datetime.now(UTC)
        ends = self._rules.expires_at(expires_at, now)
        asked = self._rules.checked_scopes(scopes)
        draft = Draft(maker.user_id, maker.organization_id, _name(name), asked, now, ends)
        async with self._database.transaction() as connection:
            # Whoever else makes a token for this person waits here, so that nobody counts too few.
            owner = await connection.fetchrow(_LOCK_OWNER, maker.user_id)
            room = await connection.fetchrow(_ROOM, maker.user_id, maker.organization_id)
            if owner is None or room is None or not room["belongs"]:
                raise OwnerUnfit("organization_left")
            _check_owner(owner)
            maker = await as_of_now(connection, maker)
            check_gift(asked, maker.scopes, Role(owner["role"]))
            if room["live"] >= self._rules.per_user:
                raise TokenLimitReached
            made = await insert(connection, draft)
            await append(connection, told("created", made.token, maker.origin))
        return made

    async def change(
        self, maker: Maker, token_id: str, *, name: str | None = None, scopes: Sequence[str] | None = None
    ) -> ApiToken:
        """Give a token another name, other scopes, or both; None leaves as it is.

        Raises:
            TokenMissing: As `get`.
            TokenEnded: It is revoked or expired.
            TokenNameInvalid: As `create`.
            ScopesUnknown: As `create`.
            ScopesExceeded: As `create`.
        """
        title = _name(name) if name is not None else None
        asked = self._rules.checked_scopes(scopes) if scopes is not None else None
        async with self._database.transaction() as connection:
            row, maker = await _lock(connection, maker, token_id)
            if asked is not None:
                check_gift(asked, maker.scopes, Role(row["role"]))
            before = api_token_of(row)
            changed = await connection.fetchrow(
                _CHANGE, token_id, title or before.name, list(before.scopes if asked is None else asked)
            )
            token = api_token_of(_there(changed))
            was = {"name": before.name, "scopes": before.scopes}
            await append(connection, told("changed", token, maker.origin, before=was))
        return token

    async def rotate(self, maker: Maker, token_id: str, overlap_s: float = DEFAULT_OVERLAP_S) -> MadeToken:
        """Make a token that takes another's place: name, scopes, organization and length of life are the same.

        The old one lives on for the overlap, or until its own end; one that it had itself replaced ends now, so that
        no more than two of a line are good at once. Of two who rotate the same token at once, one is refused.

        Args:
            maker: Who asks.
            token_id: The old one's.
            overlap_s: 0 to `MAX_OVERLAP_S` seconds.

        Raises:
            TokenMissing: As `get`.
            TokenEnded: It is revoked, expired or replaced already.
            TokenExpiryInvalid: `overlap_invalid`.
            ScopesExceeded: The old one can more than the maker.
            OwnerUnfit: As `create`.
        """
        if not 0 <= overlap_s <= MAX_OVERLAP_S:
            raise TokenExpiryInvalid("overlap_invalid")
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK_OWNER, maker.user_id)  # before their tokens, as whoever ends all of them
            row, maker = await _lock(connection, maker, token_id)
            old = api_token_of(row)
            if old.replaced_by is not None:
                raise TokenEnded("token_replaced")
            if not row["belongs"]:
                raise OwnerUnfit("organization_left")
            _check_owner(row)
            check_gift(old.scopes, maker.scopes, Role(row["role"]))
            ends = self._rules.renewed(old, now)
            draft = Draft(old.user_id, old.organization_id, old.name, old.scopes, now, ends)
            made = await insert(connection, draft)
            ended = tuple(row["id"] for row in await connection.fetch(_END_REPLACED, old.id, now))
            overlap_ends = now + timedelta(seconds=overlap_s)
            left = api_token_of(_there(await connection.fetchrow(_REPLACE, old.id, made.token.id, overlap_ends)))
            await append(connection, told("rotated", left, maker.origin, replacedBy=made.token.id))
        return replace(made, ended=ended)

    async def revoke(self, maker: Maker, token_id: str) -> ApiToken:
        """End a token now and for ever; an ended one stays as it is.

        Raises:
            TokenMissing: As `get`.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_GET, *_reach(await as_of_now(connection, maker), token_id))
            return await end_token(connection, row, maker.origin)

    async def revoke_any(self, token_id: str, origin: Origin) -> ApiToken:
        """End anybody's token, for operators.

        Raises:
            TokenMissing: There is none.
        """
        _check_id(token_id)
        async with self._database.transaction() as connection:
            return await end_token(connection, await connection.fetchrow(_BY_ID, token_id), origin)

    async def revoke_leaked(self, public_id: str, digest: bytes, origin: Origin) -> ApiToken | None:
        """End the token whose whole text somebody found in public; None when there is no such token.

        Args:
            public_id: Of the found text.
            digest: SHA-256 of the found text: who knows only a public id ends nothing.
            origin: For the audit event.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_BY_TEXT, public_id, digest)
            return await end_token(connection, row, origin, cause="leaked") if row is not None else None

    async def reveal(self, maker: Maker, token_id: str) -> MadeToken:
        """Give out the sealed secret of the token made at sign-up, and erase it: once, whoever asks first.

        Raises:
            TokenMissing: As `get`.
            TokenEnded: It is revoked or expired.
            SecretGone: Revealed already, unread for 7 days, or never sealed; `seal_broken` when it does not open: the
                master key is another one, and nothing is erased.
            ScopesExceeded: The token can more than the maker.
        """
        async with self._database.transaction() as connection:
            row, maker = await _lock(connection, maker, token_id)
            token = api_token_of(row)
            if self._sealer is None or not token.revealable:
                raise SecretGone
            check_gift(token.scopes, maker.scopes, Role(row["role"]))
            text = _unsealed(self._sealer, row["sealed_secret"], token.id)
            erased = api_token_of(_there(await connection.fetchrow(_ERASE, token.id)))
            await append(connection, told("revealed", erased, maker.origin))
        return MadeToken(erased, text)


def _reach(maker: Maker, token_id: str) -> tuple[str, str, str]:
    """Give what `_MINE` asks for: what proves one organization is no way into its person's others."""
    _check_id(token_id)
    return token_id, maker.user_id, maker.organization_id


def _check_id(token_id: str) -> None:
    """Spare PostgreSQL what cannot be an id; some of it, such as U+0000, it would not even take."""
    if not is_id("atk", token_id):
        raise TokenMissing


def _name(text: str) -> str:
    name = folded_line(text)
    if not 1 <= len(name) <= NAME_LENGTH:
        raise TokenNameInvalid
    return name


async def _lock(connection: Connection, maker: Maker, token_id: str) -> tuple[Row, Maker]:
    """Lock a token of the maker's that has not ended; gives the maker as of then."""
    row = await connection.fetchrow(_LOCK, *_reach(maker, token_id))
    if row is None:
        raise TokenMissing
    if row["token_revoked_at"] is not None:
        raise TokenEnded("token_revoked")
    if row["expired"]:
        raise TokenEnded("token_expired")
    return row, await as_of_now(connection, maker)


async def end_token(connection: Connection, row: Row | None, origin: Origin, **more: object) -> ApiToken:
    """Revoke inside the caller's transaction the token whose `token_id` a row names, and write that down at last.

    Raises:
        TokenMissing: There is no row.
    """
    token, events = await ended_token(connection, row, origin, **more)
    await append(connection, *events)
    return token


async def ended_token(
    connection: Connection, row: Row | None, origin: Origin, **more: object
) -> tuple[ApiToken, tuple[Event, ...]]:
    """The same, for whoever ends several; gives what is to be written down, nothing if it had ended before."""
    if row is None:
        raise TokenMissing
    ended = await connection.fetchrow(_REVOKE, row["token_id"])
    if ended is None:  # it had ended before, perhaps this moment
        return api_token_of(_there(await connection.fetchrow(_BY_ID, row["token_id"]))), ()
    token = api_token_of(ended)
    return token, (told("revoked", token, origin, **more),)


def _unsealed(sealer: Sealer, sealed: bytes, token_id: str) -> str:
    try:
        return sealer.unseal(sealed, token_id).decode()
    except SealBroken as error:
        _log.error("sealed_token_does_not_open", token_id=token_id)  # an operator has to find the right master key
        raise SecretGone("seal_broken") from error


def _check_owner(row: Row) -> None:
    if row["deleted_at"] is not None:
        raise OwnerUnfit("user_deleted")
    if row["disabled_at"] is not None or row["banned_at"] is not None:
        raise OwnerUnfit("user_disabled")


def _there(row: Row | None) -> Row:
    """Insist on a row that this transaction has locked or just seen."""
    if row is None:
        raise TokenMissing
    return row
