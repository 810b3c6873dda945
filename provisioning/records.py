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


@dataclass(frozen=True, slots=True)
class ApiToken:
    """One row of `api_tokens`, without what could be used as a credential.

    Attributes:
        id: `atk_` and 22 base62 characters; what the upstream is told.
        public_id: The 12 characters of the token's text that are no secret.
        name: One line, given by a person.
        scopes: As given; what they are worth today is `token_rules.held`'s to say.
        user_id: The owner, `usr_…`.
        organization_id: The one organization the token acts in, `org_…`.
        expires_at: None: never.
        last_used_at: Up to a minute behind; None: not used yet.
        last_used_address: The client's address then.
        revoked_at: Set once, for ever.
        replaced_by: Id of the token that rotation put in its place; this one lives on until `expires_at`.
        revealable: Whether a sealed secret waits to be revealed.
    """

    id: str
    public_id: str
    name: str
    scopes: tuple[str, ...]
    user_id: str
    organization_id: str
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    last_used_address: str | None = field(default=None, repr=False)
    revoked_at: datetime | None = None
    replaced_by: str | None = None
    revealable: bool = False


@dataclass(frozen=True, slots=True)
class FoundToken:
    """An API token with all that decides what it is worth now.

    Attributes:
        digest: SHA-256 of the token's text.
        organization_role: The owner's role in the token's organization; None: the owner left it.
    """

    token: ApiToken
    digest: bytes = field(repr=False)
    user: User
    organization: Organization
    organization_role: str | None

    @property
    def standing(self) -> Standing | None:
        """The owner in the token's organization; None when the owner left it."""
        role = self.organization_role
        return Standing(self.user, self.organization, role) if role is not None else None
