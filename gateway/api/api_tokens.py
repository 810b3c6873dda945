"""`/users/current/api-tokens`: people manage their API tokens, and a token those that are no wider than itself."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, model_validator
from pydantic.alias_generators import to_camel

from gateway.answer import NO_STORE, Answer, json_answer
from gateway.api.documents import ApiTokenDocument, ApiTokenList, NewApiTokenDocument
from gateway.api.endpoints import Call
from gateway.api.origins import origin_of
from gateway.errors import (
    ContentInvalid,
    CredentialRejected,
    ExpiryInvalid,
    Fault,
    GatewayError,
    OrganizationLeft,
    RouteUnknown,
    ScopeMissing,
    ScopeUnknown,
    SecretTaken,
    StoreUnavailable,
    TokenLimit,
    TokenOver,
    UserDeleted,
    UserDisabled,
)
from gateway.revocation.changes import TokensChanged
from gateway.revocation.revocations import Revocations
from provisioning.errors import (
    DatabaseUnavailable,
    MakerEnded,
    OwnerUnfit,
    ScopesExceeded,
    ScopesUnknown,
    SecretGone,
    TokenEnded,
    TokenExpiryInvalid,
    TokenLimitReached,
    TokenMissing,
    TokenNameInvalid,
)
from provisioning.ids import is_id
from provisioning.makers import Maker
from provisioning.token_rules import Expiry
from provisioning.tokens import DEFAULT_OVERLAP_S, MAX_OVERLAP_S, NAME_LENGTH, Tokens

_MOST_SCOPES = 100
_REFUSALS = (MakerEnded, OwnerUnfit, ScopesExceeded, ScopesUnknown, TokenEnded, TokenMissing, TokenNameInvalid)
_EXPIRIES = {
    "expiry_past": "This moment is past.",
    "expiry_too_late": "This moment is later than tokens may live here.",
    "expiry_never": "Every token ends here; name a moment, or leave this out.",
}


def _moment(value: object) -> object:
    """Read an ISO 8601 moment with its offset; None stays."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None and moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    if value is not None:
        raise ValueError("write an ISO 8601 moment with its offset, such as 2030-01-31T12:00:00Z")
    return None


Scopes = Annotated[list[Annotated[StrictStr, Field(max_length=200)]], Field(max_length=_MOST_SCOPES)]


class Body(BaseModel):
    """Base of what these endpoints take: nothing unknown, nothing converted."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class NewToken(Body):
    """Asks for a token."""

    name: StrictStr = Field(description=f"1 to {NAME_LENGTH} characters.")
    scopes: Scopes = Field([], description="None: it passes routes that demand none.")
    expires_at: Annotated[datetime | None, BeforeValidator(_moment)] = Field(
        None, description="Null: never, where that is allowed; absent: after the default life."
    )


class TokenChange(Body):
    """Asks for another name, other scopes, or both."""

    name: StrictStr | None = None
    scopes: Scopes | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "TokenChange":
        if self.name is None and self.scopes is None:
            raise ValueError("give name, scopes or both")
        return self


class Rotation(Body):
    """Asks for a token in another's place."""

    overlap_seconds: float = Field(
        DEFAULT_OVERLAP_S, ge=0, le=MAX_OVERLAP_S, strict=True, description="How long both are good."
    )


@dataclass(frozen=True, slots=True)
class ApiTokenEndpoints:
    """Answers about the caller's API tokens.

    Attributes:
        revocations: Told of every change, before the answer.
    """

    tokens: Tokens
    revocations: Revocations

    async def list_all(self, call: Call) -> Answer:
        """List them without their secrets."""
        maker = maker_of(call)
        with _translated():
            found = await self.tokens.list_of(maker.user_id, maker.organization_id)
        items = [ApiTokenDocument.of(token) for token in found]
        return json_answer(200, ApiTokenList(items=items).plain())

    async def show(self, call: Call) -> Answer:
        """Show one, without its secret."""
        maker, token_id = maker_of(call), _token_id(call)
        with _translated():
            token = await self.tokens.get(maker, token_id)
        return json_answer(200, ApiTokenDocument.of(token).plain())

    async def create(self, call: Call) -> Answer:
        """Make one; its text is shown this once."""
        maker, body = maker_of(call), await call.read_model(NewToken)
        expires_at = body.expires_at if "expires_at" in body.model_fields_set else Expiry.DEFAULT
        with _translated(body.scopes):
            made = await self.tokens.create(maker, body.name, body.scopes, expires_at)
        return json_answer(201, NewApiTokenDocument.of(made).plain())

    async def change(self, call: Call) -> Answer:
        """Give one another name or other scopes."""
        maker, token_id, body = maker_of(call), _token_id(call), await call.read_model(TokenChange)
        with _translated(body.scopes or ()), self._forgetting(maker, token_id if body.scopes is not None else None):
            token = await self.tokens.change(maker, token_id, name=body.name, scopes=body.scopes)
        return json_answer(200, ApiTokenDocument.of(token).plain())

    async def rotate(self, call: Call) -> Answer:
        """Put a new one in its place; both are good for the overlap. The new text is shown this once."""
        maker, token_id = maker_of(call), _token_id(call)
        body = await call.read_model(Rotation) if call.arrived.has_body else Rotation()
        with _translated(), self._forgetting(maker):
            made = await self.tokens.rotate(maker, token_id, body.overlap_seconds)
            over = TokensChanged(maker.user_id, token_id, time.time() + body.overlap_seconds)
            self.revocations.tell(over, *(TokensChanged(maker.user_id, ended) for ended in made.ended))
        return json_answer(201, NewApiTokenDocument.of(made).plain())

    async def reveal(self, call: Call) -> Answer:
        """Show the text of the token made at sign-up, once."""
        maker, token_id = maker_of(call), _token_id(call)
        with _translated():
            made = await self.tokens.reveal(maker, token_id)
        return json_answer(200, NewApiTokenDocument.of(made).plain())

    async def revoke(self, call: Call) -> Answer:
        """End one for ever."""
        maker, token_id = maker_of(call), _token_id(call)
        with _translated(), self._forgetting(maker, token_id):
            await self.tokens.revoke(maker, token_id)
        return Answer(204, (NO_STORE,))

    @contextmanager
    def _forgetting(self, maker: Maker, ended: str | None = None) -> Iterator[None]:
        """Tell also when the change failed or its client left: nobody knows then whether it was made."""
        try:
            yield
        except MakerEnded:  # what is remembered of them is old
            self.revocations.tell(TokensChanged(maker.user_id))
            raise
        except _REFUSALS:  # nothing was changed: what is open with that token stays, it may not be the caller's to end
            raise
        except BaseException:
            self.revocations.tell(TokensChanged(maker.user_id, ended))
            raise
        self.revocations.tell(TokensChanged(maker.user_id, ended))


def maker_of(call: Call) -> Maker:
    """Say who manages tokens here.

    Raises:
        ImpersonationRefused: Somebody acts as this person: what they made would outlive the session.
    """
    origin, actor = origin_of(call), call.who.actor
    scopes = frozenset(actor.principal.scopes) if actor.principal.scopes is not None else None
    return Maker(actor.user_id, actor.organization_id, scopes, origin)


def _token_id(call: Call) -> str:
    token_id = call.parameters["id"]
    if not is_id("atk", token_id):
        raise RouteUnknown("token_missing")
    return token_id


@contextmanager
def _translated(scopes: list[str] | tuple[str, ...] = ()) -> Iterator[None]:
    """Say in our terms what the records refuse."""
    try:
        yield
    except ScopesUnknown as error:
        unknown = [index for index, scope in enumerate(scopes) if scope in error.scopes]
        faults = tuple(Fault(f"/scopes/{index}", "There is no such scope here.") for index in unknown)
        raise ScopeUnknown(None, faults) from None
    except ScopesExceeded as error:
        raise ScopeMissing(error.scopes) from None
    except TokenNameInvalid as error:
        fault = Fault("/name", f"A name has 1 to {NAME_LENGTH} characters.")
        raise ContentInvalid(error.reason, (fault,)) from None
    except TokenExpiryInvalid as error:
        raise ExpiryInvalid(error.reason, (Fault("/expiresAt", _EXPIRIES.get(error.reason, "")),)) from None
    except TokenMissing as error:
        raise RouteUnknown(error.reason) from None
    except TokenEnded as error:
        raise TokenOver(error.reason) from None
    except TokenLimitReached as error:
        raise TokenLimit(error.reason) from None
    except SecretGone as error:
        raise SecretTaken(error.reason) from None
    except MakerEnded as error:
        raise CredentialRejected(error.reason) from None
    except OwnerUnfit as error:
        raise _unfit(error.reason) from None
    except DatabaseUnavailable as error:
        raise StoreUnavailable("database_unavailable") from error


def _unfit(reason: str) -> GatewayError:
    if reason == "user_deleted":
        return UserDeleted()
    return UserDisabled() if reason == "user_disabled" else OrganizationLeft()
