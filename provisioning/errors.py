"""What can fail in our records, named in our terms. Callers translate; nothing here knows of HTTP."""

from collections.abc import Iterable
from typing import ClassVar


class ProvisioningError(Exception):
    """Anything the records cannot do.

    Attributes:
        reason: Exact cause, a word from a closed set; for logs and metric labels.
    """

    default_reason: ClassVar[str] = "provisioning_error"

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason or self.default_reason
        super().__init__(self.reason)


class DatabaseUnavailable(ProvisioningError):
    """PostgreSQL cannot be asked now.

    Reasons: `unreachable` (no connection, or it died), `timeout` (no answer in time), `refused` (PostgreSQL answered
    that it will not serve: starting, stopping, full, read-only, wrong password), `pool_exhausted` (all connections
    were busy for `acquire_timeout`), `breaker_open` (it was away a moment ago and nobody asked again), `closed`,
    `conflict` (it undid a transaction that waited for another in a circle).
    """

    default_reason = "unreachable"


class OrganizationMissing(ProvisioningError):
    """The subject names no Clerk organization, and personal organizations are off."""

    default_reason = "organization_missing"


class MembershipEnded(ProvisioningError):
    """The token names an organization that its person left, or that was deleted, after it was made.

    Reasons: `organization_left`, `organization_deleted`.

    Attributes:
        user_id: `usr_…`.
        organization_id: `org_…` of ours; None: we have no such organization.
    """

    default_reason = "organization_left"

    def __init__(self, reason: str, user_id: str, organization_id: str | None) -> None:
        super().__init__(reason)
        self.user_id = user_id
        self.organization_id = organization_id


class EventMalformed(ProvisioningError):
    """A webhook's body is no event, or lacks what its effect needs."""

    default_reason = "event_malformed"


class StripeUnavailable(ProvisioningError):
    """Stripe does not tell now. Reasons: `unreachable`, `timeout`, `rate_limited`, `failed`, `refused`, `malformed`."""

    default_reason = "unreachable"


class UserMissing(ProvisioningError):
    """There is no such user, or only a tombstone."""

    default_reason = "user_missing"


class UserEnded(ProvisioningError):
    """The user was deleted at Clerk: a tombstone, about which nothing changes any more."""

    default_reason = "user_deleted"


class OwnAccount(ProvisioningError):
    """Administrators do not take their own rights away."""

    default_reason = "own_account"


class NoAdministrator(ProvisioningError):
    """Who asks is no administrator, or not any more."""

    default_reason = "role_not_allowed"


class CursorInvalid(ProvisioningError):
    """A cursor that names no place in a list."""

    default_reason = "cursor_invalid"


class SettingsInvalid(ProvisioningError):
    """A settings patch holds something that JSON in PostgreSQL cannot hold, such as U+0000."""

    default_reason = "settings_invalid"


class SettingsTooLarge(ProvisioningError):
    """The settings would grow over `users.SETTINGS_BYTES`."""

    default_reason = "settings_too_large"


class TokenMissing(ProvisioningError):
    """There is no such API token, or it belongs to somebody else: both sound the same."""

    default_reason = "token_missing"


class TokenEnded(ProvisioningError):
    """The API token can no longer be changed. Reasons: `token_revoked`, `token_expired`, `token_replaced`."""

    default_reason = "token_revoked"


class TokenLimitReached(ProvisioningError):
    """The owner has as many API tokens as `tokens.per_user` allows."""

    default_reason = "token_limit_reached"


class TokenNameInvalid(ProvisioningError):
    """An API token's name is empty or too long."""

    default_reason = "token_name_invalid"


class TokenExpiryInvalid(ProvisioningError):
    """An API token cannot end then. Reasons: `expiry_past`, `expiry_too_late`, `expiry_never`, `overlap_invalid`."""

    default_reason = "expiry_past"


class _ScopeError(ProvisioningError):
    """Something about scopes.

    Attributes:
        scopes: The ones it is about, sorted.
    """

    def __init__(self, scopes: Iterable[str]) -> None:
        self.scopes = tuple(sorted(scopes))
        super().__init__()


class ScopesUnknown(_ScopeError):
    """Scopes that are neither built in nor in `tokens.scopes`."""

    default_reason = "scopes_unknown"


class ScopesExceeded(_ScopeError):
    """Scopes that the maker does not hold, so cannot give."""

    default_reason = "scopes_exceeded"


class MakerEnded(ProvisioningError):
    """The API token that asks was revoked or has expired, whatever is still believed of it elsewhere."""

    default_reason = "token_revoked"


class OwnerUnfit(ProvisioningError):
    """Nobody may make a token for this owner now. Reasons: `user_deleted`, `user_disabled`, `organization_left`."""

    default_reason = "user_disabled"


class SecretGone(ProvisioningError):
    """There is no secret to reveal: never sealed, revealed already, or its time is over; `seal_broken`: it is stuck."""

    default_reason = "secret_gone"


class SealBroken(ProvisioningError):
    """What was sealed does not open: another master key, another place, or damage."""

    default_reason = "seal_broken"


class KeysUnopened(ProvisioningError):
    """Signing keys do not open: another master key, or damage. The message is a sentence for a person."""

    default_reason = "keys_unopened"


class RingEmpty(ProvisioningError):
    """There is no signing key in memory: PostgreSQL has not answered since the start."""

    default_reason = "no_signing_keys"


class SignatureRejected(ProvisioningError):
    """A token that claims to be of our making was checked and is bad.

    Reasons: `malformed`, `algorithm` (not ES256), `kid_unknown` (`KeyRing.refresh` may know better), `signature`,
    `claims` (one is missing or of the wrong type), `issuer`, `audience`, `expired`, `not_yet`.
    """

    default_reason = "malformed"


class EmbeddedPostgresFailed(ProvisioningError):
    """The embedded PostgreSQL cannot run here. The message is a sentence for a person and says what to do."""

    default_reason = "embedded_postgres_failed"


class MigrationFailed(ProvisioningError):
    """The schema could not be brought up to date. The message says why."""

    default_reason = "migration_failed"
