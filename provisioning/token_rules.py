"""What an API token may be: its scopes, its end, and whether it counts. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Literal, Self

from config.grammar import BUILT_IN_SCOPES
from config.model import Tokens as TokenSettings
from provisioning.errors import ScopesExceeded, ScopesUnknown, TokenExpiryInvalid
from provisioning.records import ApiToken, FoundToken, Role

ADMIN_SCOPE = "admin"
UNLIMITED_SCOPE = "rate-limit:unlimited"
_OF_ADMINS = frozenset({ADMIN_SCOPE, UNLIMITED_SCOPE})

Unusable = Literal["token_revoked", "token_expired", "user_deleted", "user_disabled", "organization_left"]


class Expiry(Enum):
    """A word in the place of a moment."""

    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class TokenRules:
    """The settings `tokens` that bind API tokens.

    Attributes:
        default_life_s: Life of a token whose maker names none, in seconds; None: it never ends.
        max_life_s: Longest life anybody may ask for; None: tokens that never end may be made.
        per_user: Most tokens of one person that can be used or revealed; a replaced one in its overlap is not counted.
        scopes: The application's own, beside `BUILT_IN_SCOPES`.
    """

    default_life_s: float | None = 180 * 86400.0
    max_life_s: float | None = 365 * 86400.0
    per_user: int = 20
    scopes: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: TokenSettings) -> Self:
        """Take them from the settings; a default life that nobody wrote gives way to a shorter longest one."""
        default, longest = settings.default_life, settings.max_life
        if longest is not None and (default is None or default > longest):
            default = longest
        return cls(default, longest, settings.per_user, settings.scopes)

    def checked_scopes(self, scopes: Iterable[str]) -> tuple[str, ...]:
        """Give scopes once each, in the order given.

        Raises:
            ScopesUnknown: With those that are neither built in nor the application's.
        """
        found = tuple(dict.fromkeys(scopes))
        unknown = set(found).difference(BUILT_IN_SCOPES, self.scopes)
        if unknown:
            raise ScopesUnknown(unknown)
        return found

    def expires_at(self, asked: datetime | Expiry | None, now: datetime) -> datetime | None:
        """Settle when a token ends; None: never.

        Args:
            asked: An aware moment, `Expiry.DEFAULT`, or None for never.
            now: Aware.

        Raises:
            TokenExpiryInvalid: It lies in the past or after the longest life, or never is not allowed.
        """
        if isinstance(asked, Expiry):
            return now + timedelta(seconds=self.default_life_s) if self.default_life_s is not None else None
        if asked is None:
            if self.max_life_s is not None:
                raise TokenExpiryInvalid("expiry_never")
            return None
        if asked <= now:
            raise TokenExpiryInvalid("expiry_past")
        if self.max_life_s is not None and asked > now + timedelta(seconds=self.max_life_s):
            raise TokenExpiryInvalid("expiry_too_late")
        return asked

    def renewed(self, token: ApiToken, now: datetime) -> datetime | None:
        """Settle when the token that takes another's place ends: after as long a life, if the rules still allow it."""
        if token.expires_at is None:
            return None if self.max_life_s is None else now + timedelta(seconds=self.max_life_s)
        life = token.expires_at - token.created_at
        return now + (life if self.max_life_s is None else min(life, timedelta(seconds=self.max_life_s)))


def held(scopes: Iterable[str], role: Role) -> tuple[str, ...]:
    """Keep of a token's scopes what its owner's role still carries.

    `admin` and `rate-limit:unlimited` are for role ADMIN alone: else anybody could make a token that no limit binds.
    """
    return tuple(scope for scope in scopes if scope not in _OF_ADMINS or role is Role.ADMIN)


def check_gift(scopes: Iterable[str], maker_scopes: Iterable[str] | None, role: Role) -> None:
    """See that nobody gives what they do not hold.

    Args:
        scopes: To be given to a token.
        maker_scopes: Of the token that asks; None: a session, or an operator.
        role: The owner's.

    Raises:
        ScopesExceeded: With what is too much.
    """
    given = tuple(scopes)
    mine = held(given if maker_scopes is None else maker_scopes, role)
    if exceeded := set(given).difference(mine):
        raise ScopesExceeded(exceeded)


def unusable(found: FoundToken, now: datetime) -> Unusable | None:
    """Say why a token whose secret is right cannot be used now; None: it can.

    Args:
        found: As read from the records.
        now: Aware.
    """
    token, user = found.token, found.user
    if token.revoked_at is not None:
        return "token_revoked"
    if token.expires_at is not None and token.expires_at <= now:
        return "token_expired"
    if user.deleted_at is not None:
        return "user_deleted"
    if user.disabled_at is not None or user.banned_at is not None:
        return "user_disabled"
    return "organization_left" if found.organization_role is None else None
