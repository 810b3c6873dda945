"""What can fail in our records, named in our terms. Callers translate; nothing here knows of HTTP."""

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
    were busy for `acquire_timeout`), `breaker_open` (it was away a moment ago and nobody asked again), `closed`.
    """

    default_reason = "unreachable"


class OrganizationMissing(ProvisioningError):
    """The subject names no Clerk organization, and personal organizations are off."""

    default_reason = "organization_missing"


class UserMissing(ProvisioningError):
    """There is no such user, or only a tombstone."""

    default_reason = "user_missing"


class SettingsInvalid(ProvisioningError):
    """A settings patch holds something that JSON in PostgreSQL cannot hold, such as U+0000."""

    default_reason = "settings_invalid"


class SettingsTooLarge(ProvisioningError):
    """The settings would grow over `users.SETTINGS_BYTES`."""

    default_reason = "settings_too_large"


class EmbeddedPostgresFailed(ProvisioningError):
    """The embedded PostgreSQL cannot run here. The message is a sentence for a person and says what to do."""

    default_reason = "embedded_postgres_failed"


class MigrationFailed(ProvisioningError):
    """The schema could not be brought up to date. The message says why."""

    default_reason = "migration_failed"
