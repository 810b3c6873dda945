"""What Clerk's webhooks say, read into values. Pure; the signature was checked before.

Shapes are read leniently, because they grow without notice: only what has an effect must be of its type. Times are in
milliseconds by Clerk's documentation and in seconds in its examples, so both are read (facts: Clerk, webhooks).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from provisioning.clerk_api import profile_in
from provisioning.errors import EventMalformed
from provisioning.profile import Profile, clean_name

_VISIBLE = re.compile(r"[!-~]{1,255}", re.ASCII)  # what an id may be; as `gateway/verify/claims.py` reads tokens
_MILLISECONDS_FROM = 1e11  # as seconds in the year 5138, as milliseconds in 1973
_LAST_SECOND = 253_402_300_799.0  # of the year 9999
_SESSION_ENDS = frozenset({"session.ended", "session.removed", "session.revoked"})


@dataclass(frozen=True, slots=True)
class PersonTold:
    """`user.created`, `user.updated`.

    Attributes:
        refused: Banned, or taken out of the directory that provisioned them. A locked person is not: anybody can lock
            somebody out at the sign-in page by guessing passwords, and sessions go on at Clerk too.
    """

    clerk_user_id: str
    at: datetime
    profile: Profile
    refused: bool = False


@dataclass(frozen=True, slots=True)
class PersonGone:
    """`user.deleted`; `at`: when, or when it was told."""

    clerk_user_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class OrganizationTold:
    """`organization.created`, `organization.updated`."""

    clerk_organization_id: str
    at: datetime
    name: str | None


@dataclass(frozen=True, slots=True)
class OrganizationGone:
    """`organization.deleted`."""

    clerk_organization_id: str
    name: str | None


@dataclass(frozen=True, slots=True)
class MembershipTold:
    """`organizationMembership.created`, `organizationMembership.updated`.

    Attributes:
        role: Without `org:`.
        organization_name: For an organization we have not heard of.
        person_name: Likewise for the person.
    """

    clerk_user_id: str
    clerk_organization_id: str
    at: datetime
    role: str
    organization_name: str | None = None
    person_name: str | None = None


@dataclass(frozen=True, slots=True)
class MembershipGone:
    """`organizationMembership.deleted`; `at` is the moment of leaving, or as near before it as Clerk tells."""

    clerk_user_id: str
    clerk_organization_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """`session.ended`, `session.removed`, `session.revoked`."""

    session_id: str
    clerk_user_id: str | None


Fact = PersonTold | PersonGone | OrganizationTold | OrganizationGone | MembershipTold | MembershipGone | SessionEnded


@dataclass(frozen=True, slots=True)
class ClerkEvent:
    """One webhook.

    Attributes:
        kind: Its type, such as `user.created`.
        instance_id: `ins_…`; None: it does not say.
        fact: What it tells us; None: nothing that has an effect here.
        address: Of whoever caused it at Clerk.
        user_agent: Likewise, as sent.
    """

    kind: str
    instance_id: str | None
    fact: Fact | None
    address: str | None = None
    user_agent: str | None = field(default=None, repr=False)


def parse_event(body: bytes, sent_at: float) -> ClerkEvent:
    """Read a webhook's body.

    Args:
        body: As received and signed.
        sent_at: When it was sent (`svix-timestamp`), Unix seconds: the time of what tells no other.

    Raises:
        EventMalformed: Not an event, or one whose effect cannot be read from it.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise EventMalformed from None
    if not isinstance(document, dict):
        raise EventMalformed
    kind, instance_id = document.get("type"), document.get("instance_id")
    if not isinstance(kind, str) or _VISIBLE.fullmatch(kind) is None:
        raise EventMalformed
    happened_at = _moment(document.get("timestamp"))
    fact = _fact(kind, document.get("data"), happened_at or _instant(sent_at))
    request = _object(_object(document.get("event_attributes")).get("http_request"))
    return ClerkEvent(
        kind,
        instance_id if isinstance(instance_id, str) else None,
        fact,
        _text(request.get("client_ip")),
        _text(request.get("user_agent")),
    )


def _fact(kind: str, data: object, happened_at: datetime) -> Fact | None:
    """Read what has an effect; `happened_at` is the time of the event, the object's own `updated_at` comes first."""
    about, _, what = kind.partition(".")
    told, gone = what in ("created", "updated"), what == "deleted"
    if kind in _SESSION_ENDS:
        facts = _members(data)
        return SessionEnded(_id(facts.get("id")), _id(facts["user_id"]) if facts.get("user_id") is not None else None)
    if about not in ("user", "organization", "organizationMembership") or not (told or gone):
        return None
    facts = _members(data)
    updated_at = _moment(facts.get("updated_at"))
    if about == "user":
        return _person_told(facts, updated_at or happened_at) if told else PersonGone(_id(facts.get("id")), happened_at)
    if about == "organization":
        name = clean_name(_text(facts.get("name"))) or clean_name(_text(facts.get("slug")))
        id_ = _id(facts.get("id"))
        return OrganizationTold(id_, updated_at or happened_at, name) if told else OrganizationGone(id_, name)
    if told:
        return _membership_told(facts, updated_at or happened_at)
    # The object of a deletion says when it was changed last, which was before.
    return MembershipGone(*_member(facts), max(updated_at or happened_at, happened_at))


def _person_told(facts: Mapping[str, Any], at: datetime) -> PersonTold:
    refused = facts.get("banned") is True or facts.get("deprovisioned") is True
    return PersonTold(_id(facts.get("id")), at, profile_in(facts), refused)


def _membership_told(facts: Mapping[str, Any], at: datetime) -> MembershipTold:
    organization, person = _object(facts.get("organization")), _object(facts.get("public_user_data"))
    full_name = f"{_text(person.get('first_name')) or ''} {_text(person.get('last_name')) or ''}"
    return MembershipTold(
        *_member(facts),
        at,
        _id(facts.get("role")).removeprefix("org:"),
        clean_name(_text(organization.get("name"))) or clean_name(_text(organization.get("slug"))),
        clean_name(full_name),
    )


def _member(facts: Mapping[str, Any]) -> tuple[str, str]:
    person, organization = _members(facts.get("public_user_data")), _members(facts.get("organization"))
    return _id(person.get("user_id")), _id(organization.get("id"))


def _moment(value: object) -> datetime | None:
    """Read a time of Clerk's, in milliseconds or seconds; None: it is not told.

    Raises:
        EventMalformed: No time.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise EventMalformed
    seconds = value / 1000 if value >= _MILLISECONDS_FROM else float(value)
    if seconds > _LAST_SECOND:
        raise EventMalformed
    return _instant(seconds)


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _id(value: object) -> str:
    if not isinstance(value, str) or _VISIBLE.fullmatch(value) is None:
        raise EventMalformed
    return value


def _members(value: object) -> Mapping[str, Any]:
    """Insist on an object."""
    if not isinstance(value, dict):
        raise EventMalformed
    return value


def _object(value: object) -> Mapping[str, Any]:
    """Take an object; anything else tells nothing."""
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
