"""API tokens: making them, changing them, ending them, and finding one by what it says of itself.

Only a SHA-256 of a token is stored. Every change writes an audit event in its own transaction. Locks are taken in one
order, as everywhere here: the owner's row, the token's, the audit chain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from provisioning.audit import Origin
from provisioning.database.pool import Database
from provisioning.records import ApiToken, FoundToken
from provisioning.sealing import Sealer
from provisioning.token_rules import Expiry, TokenRules

NAME_LENGTH = 100
DEFAULT_OVERLAP_S = 3600.0
MAX_OVERLAP_S = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Maker:
    """Who manages tokens. A session manages all tokens of its person, a token those of its own organization.

    Attributes:
        user_id: Whose tokens, `usr_…`.
        organization_id: The organization the caller acts in: a new token is for this one.
        scopes: Of the token that asks; None: a session, or an operator, which scopes do not limit.
        origin: For the audit events.
    """

    user_id: str
    organization_id: str
    scopes: frozenset[str] | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class MadeToken:
    """An API token together with its text, to be shown once.

    Attributes:
        text: `agt_…`, a secret.
    """

    token: ApiToken
    text: str = field(repr=False)


class Tokens:
    """What can be done with API tokens. Every method raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(self, database: Database, sealer: Sealer, rules: TokenRules) -> None:
        self._database = database
        self._sealer = sealer
        self._rules = rules

    async def find(self, public_id: str) -> FoundToken | None:
        """Read a token and its owner's state now, in one query; None when there is no such token.

        Nothing is judged: compare the digest first (`TokenText.matches`, also with None), then ask
        `token_rules.unusable`, and let it act with `token_rules.held` of its scopes alone.
        """
        raise NotImplementedError

    async def list_of(self, user_id: str, organization_id: str | None = None) -> tuple[ApiToken, ...]:
        """List a person's tokens, newest first, with those that ended up to 30 days ago.

        Args:
            user_id: Whose.
            organization_id: Only those of this organization; None: all.
        """
        raise NotImplementedError

    async def get(self, maker: Maker, token_id: str) -> ApiToken:
        """Read one token.

        Raises:
            TokenMissing: There is none, or none of the maker's.
        """
        raise NotImplementedError

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
        """
        raise NotImplementedError

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
        raise NotImplementedError

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
        raise NotImplementedError

    async def revoke(self, maker: Maker, token_id: str) -> ApiToken:
        """End a token now and for ever; an ended one stays as it is.

        Raises:
            TokenMissing: As `get`.
        """
        raise NotImplementedError

    async def revoke_leaked(self, public_id: str, digest: bytes, origin: Origin) -> ApiToken | None:
        """End the token whose whole text somebody found in public; None when there is no such token.

        Args:
            public_id: Of the found text.
            digest: SHA-256 of the found text: who knows only a public id ends nothing.
            origin: For the audit event.
        """
        raise NotImplementedError

    async def reveal(self, maker: Maker, token_id: str) -> MadeToken:
        """Give out the sealed secret of the token made at sign-up, and erase it: once, whoever asks first.

        Raises:
            TokenMissing: As `get`.
            TokenEnded: It is revoked or expired.
            SecretGone: Revealed already, unread for 7 days, or never sealed.
            ScopesExceeded: The token can more than the maker.
            SealBroken: The master key is another one; nothing is erased.
        """
        raise NotImplementedError
