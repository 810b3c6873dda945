"""Shapes of what administrators and members are answered about people."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from gateway.api.documents import Document, Moment, OrganizationDocument
from provisioning.memberships import Member
from provisioning.pages import Page
from provisioning.records import Role, Standing, User
from provisioning.repair import Repaired

_CURSOR = Field(description="For the next page, as `cursor`; null: this was the last one.")


class PersonDocument(Document):
    """A person, as an administrator sees them."""

    id: str
    clerk_id: str
    name: str | None
    email: str | None = Field(description="As last told; nobody proved it to us.")
    role: Role
    disabled_at: Moment | None = Field(description="Refused since, by an administrator or operator; null: not.")
    banned_at: Moment | None = Field(description="Refused since, by a ban at Clerk, which alone ends it; null: not.")
    deleted_at: Moment | None = Field(description="Deleted at Clerk, a tombstone; null: not.")
    created_at: Moment
    updated_at: Moment

    @classmethod
    def of(cls, user: User) -> "PersonDocument":
        """Show a person."""
        return cls(**_facts(user))


class PersonDetailDocument(PersonDocument):
    """The same with where they belong."""

    organizations: list[OrganizationDocument] = Field(description="With the person's role in each.")

    @classmethod
    def of_all(cls, user: User, standings: Iterable[Standing]) -> "PersonDetailDocument":
        """Show a person with their organizations."""
        organizations = [OrganizationDocument.of(standing) for standing in standings]
        return cls(**_facts(user), organizations=organizations)


class PersonList(Document):
    """People, those who came last first."""

    items: list[PersonDocument]
    next_cursor: str | None = _CURSOR

    @classmethod
    def of(cls, page: Page[User]) -> "PersonList":
        """Show a page."""
        return cls(items=[PersonDocument.of(user) for user in page.items], next_cursor=_cursor_of(page))


class MemberDocument(Document):
    """A member of the caller's organization."""

    id: str
    name: str | None
    email: str | None = Field(description="For sessions of the organization's administrators; null for all others.")
    role: str = Field(description="In the organization, without `org:`.")
    since: Moment

    @classmethod
    def of(cls, member: Member, *, with_email: bool) -> "MemberDocument":
        """Show a member."""
        email = member.email if with_email else None
        return cls(id=member.user_id, name=member.name, email=email, role=member.role, since=member.since)


class MemberList(Document):
    """Members, the oldest membership first."""

    items: list[MemberDocument]
    next_cursor: str | None = _CURSOR

    @classmethod
    def of(cls, page: Page[Member], *, with_email: bool) -> "MemberList":
        """Show a page."""
        items = [MemberDocument.of(member, with_email=with_email) for member in page.items]
        return cls(items=items, next_cursor=_cursor_of(page))


class RepairDocument(Document):
    """What a person's records had, and what was made now."""

    user_id: str
    organization_id: str | None = Field(description="The personal organization; null where there are none.")
    steps: dict[str, Literal["found", "made", "off"]]

    @classmethod
    def of(cls, repaired: Repaired) -> "RepairDocument":
        """Show a repair."""
        return cls(user_id=repaired.user_id, organization_id=repaired.organization_id, steps=dict(repaired.steps))


def _facts(user: User) -> dict[str, object]:
    return {
        "id": user.id,
        "clerk_id": user.clerk_id,
        "name": user.name,
        "email": user.email,
        "role": user.role,
        "disabled_at": user.disabled_at,
        "banned_at": user.banned_at,
        "deleted_at": user.deleted_at,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
    }


def _cursor_of(page: Page[User] | Page[Member]) -> str | None:
    return page.last.cursor() if page.last is not None else None
