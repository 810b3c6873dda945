"""`POST /users/current/websocket-token`: a token for one more websocket, or for one that is open to live on."""

from dataclasses import dataclass

from pydantic import ValidationError

from gateway.answer import Answer, json_answer
from gateway.api.documents import WebsocketTokenDocument, WebsocketTokenWish
from gateway.api.endpoints import Call
from gateway.credentials.kinds import CredentialKind
from gateway.errors import ConnectionUnknown, ContentInvalid, PolicyDenied
from gateway.identity.minting import Minter
from gateway.live.registry import Registry
from gateway.policy.origins import normalised_origin


@dataclass(frozen=True, slots=True)
class WebsocketTokens:
    """Mints websocket tokens, and extends what was opened with one."""

    minter: Minter
    live: Registry

    async def create(self, call: Call) -> Answer:
        """Mint a token nobody was given before; with `connectionId`, that websocket lives as long as the token."""
        wish = await _wish(call)
        caller = call.who
        minted = self.minter.fresh(
            CredentialKind.WEBSOCKET_TOKEN, caller, path=wish.path, origin=_normal_origin(wish.origin)
        )
        if minted is None:
            raise PolicyDenied("minting_not_allowed")
        if wish.connection_id is not None and not self.live.renew(wish.connection_id, caller.actor, minted.expires_at):
            raise ConnectionUnknown
        return json_answer(201, WebsocketTokenDocument.of(minted).plain())


async def _wish(call: Call) -> WebsocketTokenWish:
    """Read the body; none wishes for nothing."""
    if not call.arrived.has_body:
        return WebsocketTokenWish()
    try:
        return WebsocketTokenWish.model_validate(await call.read_json())
    except ValidationError:
        raise ContentInvalid("wish_invalid") from None


def _normal_origin(origin: str | None) -> str | None:
    if origin is None:
        return None
    normal = normalised_origin(origin.encode("utf-8", "replace"))
    if normal is None:
        raise ContentInvalid("origin_invalid")
    return normal.decode("ascii")
