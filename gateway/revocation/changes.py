"""Changes after which something is believed no more, and how processes tell them. Pure.

What is not named does not narrow a change. Applying one twice does no harm, and none grants anything: whoever hears of
it asks the records anew.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import orjson
from pydantic import Discriminator, TypeAdapter, ValidationError

FORM: Literal[1] = 1
"""Of what is written below. Another form is not read, and whoever hears one believes nothing any more."""


@dataclass(frozen=True, slots=True)
class PersonChanged:
    """Our records say something else of somebody.

    Attributes:
        user_id: `usr_…`.
        clerk_user_id: `user_…`; None: not known.
        organization_id: `org_…` of ours, where; None: everywhere.
        closes: What they have open there ends.
    """

    user_id: str
    clerk_user_id: str | None = None
    organization_id: str | None = None
    closes: bool = False
    kind: Literal["person"] = "person"


@dataclass(frozen=True, slots=True)
class TokensChanged:
    """Something about somebody's API tokens is another.

    Attributes:
        user_id: `usr_…`.
        token_id: `atk_…`, whose end this is; None: of none.
        ends_at: Unix seconds, when what is open with it ends; None: now.
    """

    user_id: str
    token_id: str | None = None
    ends_at: float | None = None
    kind: Literal["tokens"] = "tokens"


@dataclass(frozen=True, slots=True)
class SessionOver:
    """A Clerk session is over.

    Attributes:
        session_id: `sess_…`.
        user_id: `usr_…` whose it was; None: nobody we know.
        clerk_user_id: The same by Clerk's id; None: it was not told.
        for_s: Seconds for which it must be denied; None: as long as the token of a session lives.
    """

    session_id: str
    user_id: str | None = None
    clerk_user_id: str | None = None
    for_s: float | None = None
    kind: Literal["session"] = "session"


@dataclass(frozen=True, slots=True)
class SignedOut:
    """What a person was given up to a moment counts no more.

    Attributes:
        clerk_user_id: `user_…`.
        before: Unix seconds, by Clerk's clock.
        user_id: `usr_…`; None: nobody we know.
        acting: Only what they were given as somebody else.
    """

    clerk_user_id: str
    before: float
    user_id: str | None = None
    acting: bool = False
    kind: Literal["signed_out"] = "signed_out"


@dataclass(frozen=True, slots=True)
class OrganizationChanged:
    """Our records say something else of an organization.

    Attributes:
        organization_id: `org_…` of ours.
    """

    organization_id: str
    kind: Literal["organization"] = "organization"


@dataclass(frozen=True, slots=True)
class AnythingChanged:
    """More changed than could be told one by one."""

    kind: Literal["anything"] = "anything"


Change: TypeAlias = PersonChanged | TokensChanged | SessionOver | SignedOut | OrganizationChanged | AnythingChanged


@dataclass(frozen=True, slots=True)
class Message:
    """What a process tells the others.

    Attributes:
        sender: Of it, random.
        number: Its own count of messages.
        at: Unix seconds, when the first of these was made.
        changes: None of them: a sign of life.
        form: FORM.
    """

    sender: str
    number: int
    at: float
    changes: tuple[Annotated[Change, Discriminator("kind")], ...] = ()
    form: Literal[1] = FORM


_MESSAGES = TypeAdapter(Message)


def to_bytes(message: Message) -> bytes:
    """Write it, as JSON."""
    return orjson.dumps(message)


def from_bytes(data: bytes) -> Message | None:
    """Read what `to_bytes` wrote; None: another form."""
    try:
        return _MESSAGES.validate_json(data, strict=True)
    except ValidationError:
        return None


def ids_of(change: Change) -> tuple[str, ...]:
    """Name whom a change is about: ids of ours, as they stand in our records."""
    match change:
        case PersonChanged() | TokensChanged():
            return (change.user_id,)
        case SessionOver() | SignedOut():
            return (change.user_id,) if change.user_id is not None else ()
        case OrganizationChanged():
            return (change.organization_id,)
        case AnythingChanged():
            return ()
