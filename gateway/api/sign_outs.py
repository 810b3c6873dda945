"""`POST /users/current/sign-out-everywhere` and `POST /admin/users/{id}/revoke`: all sessions of a person end."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from gateway.answer import Answer, json_answer
from gateway.api.api_tokens import Body
from gateway.api.documents import Document, Moment
from gateway.api.endpoints import Call
from gateway.api.origins import origin_of
from gateway.api.people import translated, user_id_of
from gateway.credentials.kinds import CredentialKind
from gateway.errors import PolicyDenied
from gateway.revocation import changes
from gateway.revocation.changes import Change, SessionOver, TokensChanged
from gateway.revocation.revocations import Revocations
from provisioning.audit import Origin
from provisioning.ended_sessions import UNCONFIRMED_S
from provisioning.sign_outs import SignedOut, SignOuts


class SignOutWish(Body):
    """What is to end beside the sessions."""

    api_tokens: bool = Field(default=False, strict=True, description="Revoke the user's API tokens as well.")


class SignOutDocument(Document):
    """What has ended, and what has not yet."""

    signed_out_before: Moment = Field(description="Session tokens issued up to then are refused from now on.")
    at_clerk: Literal["ended", "pending", "unmanaged"] = Field(
        description="`ended`: Clerk gives none of these sessions a token any more. `pending`: it did not answer; it is "
        "asked again until it does. `unmanaged`: there is no `clerk.secret_key`. In the last two the gateway refuses "
        "all sessions it has seen, while one it never saw may still be given new tokens by Clerk."
    )
    sessions: int = Field(description="How many sessions this gateway, or Clerk just now, knew of.")
    api_tokens: int = Field(description="How many API tokens were revoked.")


@dataclass(frozen=True, slots=True)
class SignOutEndpoints:
    """Ends sessions."""

    sign_outs: SignOuts
    revocations: Revocations

    async def own(self, call: Call) -> Answer:
        """End the caller's own; an API token ends by `DELETE` of its own, and may not do this.

        Raises:
            PolicyDenied: `session_required`: by anything but a session.
            ImpersonationRefused: Somebody acts as this person.
        """
        if call.who.actor.principal.kind is not CredentialKind.SESSION:
            raise PolicyDenied("session_required")
        actor = call.who.actor
        return await self._sign_out(
            call, origin_of(call), actor.user_id, by=None, session_id=actor.principal.session_id
        )

    async def of_person(self, call: Call) -> Answer:
        """End those of somebody else, for administrators."""
        return await self._sign_out(call, origin_of(call), user_id_of(call), by=call.who.actor.user_id)

    async def _sign_out(
        self, call: Call, origin: Origin, user_id: str, *, by: str | None, session_id: str | None = None
    ) -> Answer:
        wish = await call.read_model(SignOutWish) if call.arrived.has_body else SignOutWish()
        with translated():
            done = await self.sign_outs.sign_out(
                user_id, origin, by=by, api_tokens=wish.api_tokens, session_id=session_id
            )
        self.revocations.tell(*changes_of(done))  # before anything is waited for
        at_clerk, ended = await self.sign_outs.end_at_clerk(done)
        user = done.user
        self.revocations.tell(*(SessionOver(session_id, user.id, user.clerk_id) for session_id in ended))
        document = SignOutDocument(
            signed_out_before=done.before,
            at_clerk=at_clerk,
            sessions=len({*done.sessions, *ended}),
            api_tokens=len(done.tokens),
        )
        return json_answer(200, document.plain())


def changes_of(done: SignedOut) -> Iterator[Change]:
    """What processes are to hear of a sign-out."""
    user = done.user
    yield changes.SignedOut(user.clerk_id, done.before.timestamp(), user.id)
    for session_id in done.sessions:
        yield SessionOver(session_id, user.id, user.clerk_id, UNCONFIRMED_S)
    for token_id in done.tokens:
        yield TokensChanged(user.id, token_id)
