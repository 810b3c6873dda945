"""Sessions that end, for tests over the wire."""

from typing import Any

from tests.support.clerk_webhooks import Delivery, session
from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.wire import Reply, bearer


async def shows(gateway: GatewayUnderTest, token: str, target: str = "/x") -> tuple[int, str | None]:
    """What comes of a request with a token: status, and the word of a refusal."""
    reply: Reply = await gateway.get(target, bearer(token))
    return reply.status, reply.code if reply.status >= 400 else None


async def session_over(gateway: GatewayUnderTest, kind: str, session_id: str, person: str | None) -> None:
    """Have Clerk tell that a session is over."""
    event = session(kind, session_id, person or "")
    if person is None:
        del event["data"]["user_id"]
    reply = await Delivery(event).send(gateway)
    assert (reply.status, reply.json()["outcome"]) == (200, "applied"), reply


def token_of(person: str, session_id: str, **claims: Any) -> str:
    """A session token."""
    return mint_token(sub=person, sid=session_id, **claims)


REVOKED = 401, "session_revoked"
