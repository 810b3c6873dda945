"""On a route for Socket.IO each packet that connects a namespace counts as one request."""

from typing import Any

import pytest

from tests.socketio.test_raw import SETTINGS as SOCKETIO
from tests.socketio.test_raw import answering, opened_session, post
from tests.support.gateway import GatewayUnderTest
from tests.support.minted import websocket_token

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = SOCKETIO | {
    "rate_limits": {"rooms": {"limit": "3/minute"}},
    "routes": [
        route | ({"rate_limit": "rooms"} if route.get("protocol") == "socketio" else {}) for route in SOCKETIO["routes"]
    ],
}


async def test_a_namespace_too_many_is_refused_and_others_live_on(gateway: GatewayUnderTest) -> None:
    token = (await websocket_token(gateway)).encode()
    await opened_session(gateway, "limited")
    gateway.upstream.respond = answering(b"ok")
    seen = len(gateway.upstream.received)
    for name in (b"a", b"b", b"c", b"d", b"e"):
        reply = await post(gateway, "limited", b'40/%b,{"token":"%b"}' % (name, token))
        assert reply.status == 200

    sent = b"".join(received.body for received in gateway.upstream.received[seen:])
    assert [name in sent for name in (b"40/a,", b"40/b,", b"40/c,", b"40/d,", b"40/e,")] == [True] * 3 + [False] * 2
    assert await gateway.metric("gateway_rate_limited_total", rule="rooms") >= 2
