"""What our records say: plain values, as read from PostgreSQL."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """Role of a caller across all organizations. SYSTEM belongs to system tokens alone and is never stored."""

    USER = "USER"
    ADMIN = "ADMIN"
    SYSTEM = "SYSTEM"


@dataclass(frozen=True, slots=True)
class User:
    """One row of `users`.

    Attributes:
        id: `usr_` and 22 base62 characters.
        clerk_id: Clerk's `user_…`, unique.
        settings: The person's own settings, a JSON object.
        disabled_at: Set by an operator; the user is refused.
        deleted_at: Set when the person was deleted at Clerk: a tombstone, refused for ever.
    """

    id: str
    clerk_id: str
    role: Role
    created_at: datetime
    updated_at: datetime
    email: str | None = field(default=None, repr=False)
    name: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    disabled_at: datetime | None = None
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Organization:
    """One row of `organizations`.

    Attributes:
        id: `org_` and 22 base62 characters; ours, not Clerk's.
        clerk_id: Clerk's `org_…`; None for a personal organization.
        name: Display name; the slug or Clerk's id until a better one is known.
    """

    id: str
    clerk_id: str | None
    name: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """A user in one organization: what one request needs to know.

    Attributes:
        organization_role: Role of the membership row, without `org:`.
    """

    user: User
    organization: Organization
    organization_role: str


@dataclass(frozen=True, slots=True)
class Subject:
    """A proven (user, organization) pair that may be new to us.

    Attributes:
        clerk_user_id: Clerk's `user_…`.
        clerk_organization_id: Clerk's `org_…`; None asks for the personal organization.
        organization_slug: As the token says; None when unknown.
        organization_role: As the token says, without `org:`; ignored for the personal organization.
        name: From the token's profile claims.
        email: From the token's profile claims; never verified.
    """

    clerk_user_id: str
    clerk_organization_id: str | None = None
    organization_slug: str | None = None
    organization_role: str = "member"
    name: str | None = None
    email: str | None = field(default=None, repr=False)
