"""What our records say: plain values, as read from PostgreSQL."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal


class Role(StrEnum):
    """Role of a caller across all organizations. SYSTEM belongs to system tokens and machines, and is never stored."""

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
        banned_at: Set while the person is banned at Clerk; refused like a disabled one.
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
    banned_at: datetime | None = None


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
class Subscription:
    """One row of `subscriptions`: facts. `subscription_status.py` tells what follows from them at a moment.

    Attributes:
        id: `sub_` and 22 base62 characters; ours, not Stripe's.
        organization_id: Whose, `org_…`.
        source: `trial`: made here; `stripe`: Stripe says so.
        plan: What rules and upstreams call it.
        status: Stripe's word as of the last events; `trialing` of a trial made here; None: nothing is known yet.
        trial_ends_at: None: no trial.
        current_period_end: Up to when it is paid for; None: unknown.
        cancel_at_period_end: It is to end with the period.
        cancel_at: It is to end then; None: no such moment was chosen.
        canceled_at: When that was decided, or it ended.
    """

    id: str
    organization_id: str
    source: Literal["trial", "stripe"]
    plan: str
    status: str | None
    trial_ends_at: datetime | None = None
    current_period_end: datetime | None = None
    cancel_at_period_end: bool = False
    cancel_at: datetime | None = None
    canceled_at: datetime | None = None


ORGANIZATION_ADMIN = "admin"
"""Clerk's role that may do everything in an organization, without `org:`."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A user in one organization: what one request needs to know.

    Attributes:
        organization_role: Role of the membership row, without `org:`.
        subscription: The organization's, the one that counts; None: it never had any.
        role_told_at: When that role was so, by Clerk's clock; None: unknown.
    """

    user: User
    organization: Organization
    organization_role: str
    subscription: Subscription | None = None
    role_told_at: datetime | None = None

    def outdates(self, role: str, issued_at: float | None) -> bool:
        """Tell whether a token says another role, and is older than this one.

        Args:
            role: As the token says, without `org:`.
            issued_at: Its `iat`, Unix seconds; None: it may be as old as any.
        """
        if self.role_told_at is None or role == self.organization_role:
            return False
        return issued_at is None or self.role_told_at.timestamp() > issued_at


@dataclass(frozen=True, slots=True)
class Subject:
    """A proven (user, organization) pair that may be new to us.

    Attributes:
        clerk_user_id: Clerk's `user_…`; empty for the organization itself, which an API key of its own speaks for.
        clerk_organization_id: Clerk's `org_…`; None asks for the personal organization.
        organization_slug: As the token says; None when unknown.
        organization_role: As the token says, without `org:`; ignored for the personal organization.
        name: From the token's profile claims.
        email: From the token's profile claims; never verified.
        issued_at: `iat` of the token, Unix seconds: what it says of the organization was so then. None: unknown.
    """

    clerk_user_id: str
    clerk_organization_id: str | None = None
    organization_slug: str | None = None
    organization_role: str = "member"
    name: str | None = None
    email: str | None = field(default=None, repr=False)
    issued_at: float | None = None


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
        subscription: Of that organization.
    """

    token: ApiToken
    digest: bytes = field(repr=False)
    user: User
    organization: Organization
    organization_role: str | None
    subscription: Subscription | None = None

    @property
    def standing(self) -> Standing | None:
        """The owner in the token's organization; None when the owner left it."""
        role = self.organization_role
        return Standing(self.user, self.organization, role, self.subscription) if role is not None else None
