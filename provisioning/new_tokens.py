"""The row of a new API token; the one made at first sight keeps its text, sealed, until it is revealed."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from provisioning.audit import Event, Origin
from provisioning.database.pool import Connection
from provisioning.ids import new_id
from provisioning.records import ApiToken
from provisioning.rows import API_TOKEN_COLUMNS, api_token_of
from provisioning.sealing import Sealer
from provisioning.token_rules import Expiry, TokenRules
from provisioning.token_text import new_token

ONE_TIME_SECRETS = "one-time secrets"
FIRST_TOKEN_NAME = "First token"
REVEALABLE_FOR = timedelta(days=7)

_INSERT = f"""
    INSERT INTO api_tokens AS t (id, public_id, digest, user_id, organization_id, name, scopes, created_at, expires_at,
                                 sealed_secret, sealed_until)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING {API_TOKEN_COLUMNS}
"""  # noqa: S608 - column names of our own


@dataclass(frozen=True, slots=True)
class MadeToken:
    """An API token together with its text, to be shown once.

    Attributes:
        text: `agt_…`, a secret.
        ended: Ids of tokens that ended with its making, before their time.
    """

    token: ApiToken
    text: str = field(repr=False)
    ended: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """What a new token is to be; everything about it has been judged.

    Attributes:
        made_at: Aware.
        expires_at: Aware; None: never.
    """

    user_id: str
    organization_id: str
    name: str
    scopes: tuple[str, ...]
    made_at: datetime
    expires_at: datetime | None


async def insert(connection: Connection, draft: Draft, sealer: Sealer | None = None) -> MadeToken:
    """Write the row of a new token.

    Args:
        connection: Within a transaction.
        draft: What it is to be.
        sealer: Also keeps the text, sealed for this row alone, to be revealed within 7 days.
    """
    text, token_id = new_token(), new_id("atk")
    row = await connection.fetchrow(
        _INSERT,
        token_id,
        text.public_id,
        text.digest(),
        draft.user_id,
        draft.organization_id,
        draft.name,
        list(draft.scopes),
        draft.made_at,
        draft.expires_at,
        sealer.seal(text.text.encode(), token_id) if sealer is not None else None,
        draft.made_at + REVEALABLE_FOR if sealer is not None else None,
    )
    assert row is not None  # noqa: S101 - an insertion without a conflict clause gives its row
    return MadeToken(api_token_of(row), text.text)


def told(action: str, token: ApiToken, origin: Origin, **more: object) -> Event:
    """Put into words what was done to a token.

    Args:
        action: What comes behind `api_token.`.
        token: As it is now.
        origin: Who did it.
        more: Further facts, JSON.
    """
    facts: dict[str, object] = {
        "publicId": token.public_id,
        "name": token.name,
        "scopes": token.scopes,
        "expiresAt": token.expires_at.isoformat() if token.expires_at is not None else None,
        **more,
    }
    targets = (token.id, token.user_id)
    return Event(f"api_token.{action}", token.organization_id, origin, targets, facts)


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Makes the token that a new user finds waiting."""

    sealer: Sealer
    rules: TokenRules

    async def insert(self, connection: Connection, user_id: str, organization_id: str, origin: Origin) -> Event:
        """Write its row, with the application's scopes and the default life; gives what the audit is to be told."""
        now = datetime.now(UTC)
        expires_at = self.rules.expires_at(Expiry.DEFAULT, now)
        draft = Draft(user_id, organization_id, FIRST_TOKEN_NAME, self.rules.scopes, now, expires_at)
        made = await insert(connection, draft, self.sealer)
        return told("created", made.token, origin, sealed=True)
