"""Reads rows into records. Queries name their columns through here, so that both sides stay together."""

import json

import asyncpg

from provisioning.records import Organization, Role, Standing, User

_USER = ("id", "clerk_id", "email", "name", "role", "settings", "disabled_at", "deleted_at", "created_at", "updated_at")
_ORGANIZATION = ("id", "clerk_id", "name", "created_at", "updated_at")

USER_COLUMNS = ", ".join(_USER)
ORGANIZATION_COLUMNS = ", ".join(_ORGANIZATION)
# For `FROM users u … memberships m … organizations o`: user columns first, then the organization's, then the role.
STANDING_COLUMNS = ", ".join(
    (
        *(f"u.{name} AS user_{name}" for name in _USER),
        *(f"o.{name} AS organization_{name}" for name in _ORGANIZATION),
        "m.role AS membership_role",
    )
)


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


def standing_of(row: asyncpg.Record) -> Standing:
    """Read a row that holds `STANDING_COLUMNS`."""
    return Standing(user_of(row, "user_"), organization_of(row, "organization_"), row["membership_role"])
