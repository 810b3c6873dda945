"""Reads rows into records. Queries name their columns through here, so that both sides stay together."""

import json

import asyncpg

from provisioning.records import ApiToken, FoundToken, Organization, Role, Standing, Subscription, User

_USER = (
    "id",
    "clerk_id",
    "email",
    "name",
    "role",
    "settings",
    "disabled_at",
    "deleted_at",
    "banned_at",
    "created_at",
    "updated_at",
)
_API_TOKEN = (
    "id",
    "public_id",
    "name",
    "scopes",
    "user_id",
    "organization_id",
    "created_at",
    "expires_at",
    "last_used_at",
    "last_used_address",
    "revoked_at",
    "replaced_by",
)
_ORGANIZATION = ("id", "clerk_id", "name", "created_at", "updated_at")
_SUBSCRIPTION = (
    "id",
    "organization_id",
    "source",
    "plan",
    "status",
    "trial_ends_at",
    "current_period_end",
    "cancel_at_period_end",
    "cancel_at",
    "canceled_at",
)

USER_COLUMNS = ", ".join(_USER)
ORGANIZATION_COLUMNS = ", ".join(_ORGANIZATION)
# For `FROM api_tokens t`.
API_TOKEN_COLUMNS = ", ".join(
    (*(f"t.{name} AS token_{name}" for name in _API_TOKEN), "t.sealed_until > now() AS token_revealable")
)
SUBSCRIPTION_COLUMNS = ", ".join(_SUBSCRIPTION)
# Which of an organization's subscriptions counts, for `WHERE organization_id = …`.
CURRENT_SUBSCRIPTION = "ORDER BY precedence, started_at DESC, id LIMIT 1"
# For `FROM users u … memberships m … organizations o` and SUBSCRIPTION_OF_ORGANIZATION: user columns first, then the
# organization's, the role, and the subscription's, all NULL where there is none.
STANDING_COLUMNS = ", ".join(
    (
        *(f"u.{name} AS user_{name}" for name in _USER),
        *(f"o.{name} AS organization_{name}" for name in _ORGANIZATION),
        "m.role AS membership_role",
        "m.told_at AS membership_told_at",
        *(f"s.{name} AS subscription_{name}" for name in _SUBSCRIPTION),
    )
)
SUBSCRIPTION_OF_ORGANIZATION = f"""
    LEFT JOIN LATERAL (
        SELECT {SUBSCRIPTION_COLUMNS} FROM subscriptions WHERE organization_id = o.id {CURRENT_SUBSCRIPTION}
    ) s ON true
"""  # noqa: S608 - column names of our own


def _number(digits: str) -> int | float:
    """Read an integer of jsonb, which keeps 1e20 as a hundred million millions; beyond 64 bits it is a float again."""
    number = int(digits)
    return number if -(2**63) <= number < 2**64 else float(digits)


def user_of(row: asyncpg.Record, prefix: str = "") -> User:
    """Read a row that holds `USER_COLUMNS`, each behind `prefix`."""
    return User(
        id=row[f"{prefix}id"],
        clerk_id=row[f"{prefix}clerk_id"],
        role=Role(row[f"{prefix}role"]),
        created_at=row[f"{prefix}created_at"],
        updated_at=row[f"{prefix}updated_at"],
        email=row[f"{prefix}email"],
        name=row[f"{prefix}name"],
        settings=json.loads(row[f"{prefix}settings"], parse_int=_number),
        disabled_at=row[f"{prefix}disabled_at"],
        deleted_at=row[f"{prefix}deleted_at"],
        banned_at=row[f"{prefix}banned_at"],
    )


def organization_of(row: asyncpg.Record, prefix: str = "") -> Organization:
    """Read a row that holds `ORGANIZATION_COLUMNS`, each behind `prefix`."""
    return Organization(
        id=row[f"{prefix}id"],
        clerk_id=row[f"{prefix}clerk_id"],
        name=row[f"{prefix}name"],
        created_at=row[f"{prefix}created_at"],
        updated_at=row[f"{prefix}updated_at"],
    )


def subscription_of(row: asyncpg.Record, prefix: str = "") -> Subscription:
    """Read a row that holds `SUBSCRIPTION_COLUMNS`, each behind `prefix`."""
    return Subscription(
        id=row[f"{prefix}id"],
        organization_id=row[f"{prefix}organization_id"],
        source=row[f"{prefix}source"],
        plan=row[f"{prefix}plan"],
        status=row[f"{prefix}status"],
        trial_ends_at=row[f"{prefix}trial_ends_at"],
        current_period_end=row[f"{prefix}current_period_end"],
        cancel_at_period_end=row[f"{prefix}cancel_at_period_end"],
        cancel_at=row[f"{prefix}cancel_at"],
        canceled_at=row[f"{prefix}canceled_at"],
    )


def _subscription(row: asyncpg.Record) -> Subscription | None:
    return subscription_of(row, "subscription_") if row["subscription_id"] is not None else None


def standing_of(row: asyncpg.Record) -> Standing:
    """Read a row that holds `STANDING_COLUMNS`."""
    return Standing(
        user_of(row, "user_"),
        organization_of(row, "organization_"),
        row["membership_role"],
        _subscription(row),
        row["membership_told_at"],
    )


def api_token_of(row: asyncpg.Record) -> ApiToken:
    """Read a row that holds `API_TOKEN_COLUMNS`."""
    return ApiToken(
        id=row["token_id"],
        public_id=row["token_public_id"],
        name=row["token_name"],
        scopes=tuple(row["token_scopes"]),
        user_id=row["token_user_id"],
        organization_id=row["token_organization_id"],
        created_at=row["token_created_at"],
        expires_at=row["token_expires_at"],
        last_used_at=row["token_last_used_at"],
        last_used_address=row["token_last_used_address"],
        revoked_at=row["token_revoked_at"],
        replaced_by=row["token_replaced_by"],
        revealable=bool(row["token_revealable"]),  # NULL when nothing is sealed
    )


def found_token_of(row: asyncpg.Record) -> FoundToken:
    """Read a row that holds `API_TOKEN_COLUMNS`, the digest, and `STANDING_COLUMNS` with a role that may be NULL."""
    user, organization = user_of(row, "user_"), organization_of(row, "organization_")
    role, subscription = row["membership_role"], _subscription(row)
    return FoundToken(api_token_of(row), row["token_digest"], user, organization, role, subscription)
