"""Tokens the gateway mints: asked for as clients do, or signed by its own ring as an attacker could not."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import jwt
import orjson

from provisioning.database.pool import Database
from provisioning.key_ring import KeyRing
from provisioning.ring_records import PURPOSE, KeyRow, RingRecords
from provisioning.sealing import Sealer
from provisioning.signing_key import new_key, private_bytes
from tests.support.gateway import MASTER_KEY, ORIGIN, GatewayUnderTest, mint_token
from tests.support.rings import RULES
from tests.support.wire import Reply, bearer, request

SYSTEM_TOKEN = "ags_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
ROUTES: list[dict[str, Any]] = [
    {"path": "/public/**", "auth": "none", "upstream": "app"},
    {"path": "/ws/**", "auth": "required", "accept": ["websocket_token", "session"], "upstream": "app"},
    {"path": "/maybe/**", "auth": "optional", "accept": ["websocket_token", "session"], "upstream": "app"},
    {"path": "/agents/**", "auth": "required", "accept": ["agent_token", "session"], "upstream": "app"},
    {"path": "/system/**", "auth": "required", "accept": ["system_token", "session"], "upstream": "app"},
    {
        "path": "/admin/**",
        "auth": "required",
        "accept": ["agent_token", "websocket_token", "session"],
        "roles": ["ADMIN"],
        "upstream": "app",
    },
    {"path": "/**", "auth": "required", "upstream": "app"},
]


async def current_user(gateway: GatewayUnderTest, **claims: Any) -> dict[str, Any]:
    """What `/users/current` answers a session with these claims."""
    reply = await gateway.get("/users/current", bearer(mint_token(**claims)))
    assert reply.status == 200, reply
    user: dict[str, Any] = reply.json()
    return user


async def websocket_token(gateway: GatewayUnderTest, **claims: Any) -> str:
    """The websocket token of a session with these claims."""
    return str((await current_user(gateway, **claims))["websocketToken"])


async def ask_for_token(gateway: GatewayUnderTest, wish: Any = None, *lines: str, **claims: Any) -> Reply:
    """Ask for a fresh websocket token."""
    body = b"" if wish is None else orjson.dumps(wish)
    given = (*lines, "Content-Type: application/json") if wish is not None else lines
    target = "/users/current/websocket-token"
    return await gateway.ask(request(target, bearer(mint_token(**claims)), *given, method="POST", body=body))


def ring_of(gateway: GatewayUnderTest) -> KeyRing:
    """The ring the gateway signs with."""
    ring: KeyRing = gateway.reloader.current.parts._parts["key ring"].value
    return ring


def claims_of(token: str) -> dict[str, Any]:
    """What a token says; its signature is checked elsewhere."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def signed(gateway: GatewayUnderTest, base: str, **changes: Any) -> str:
    """A minted token with other claims, signed by the gateway's own ring; None removes a claim."""
    claims: Mapping[str, object] = claims_of(base) | changes
    return ring_of(gateway).sign({name: value for name, value in claims.items() if value is not None})


def lone_ring(clock: Callable[[], float]) -> KeyRing:
    """A ring of one key, adopted as if PostgreSQL had held it, for tests of what is signed."""
    sealer, key = Sealer(MASTER_KEY, PURPOSE), new_key(0.0, 0.0)
    ring = KeyRing(RingRecords(cast(Database, None), sealer), ORIGIN, RULES, clock=clock)
    ring._adopt([KeyRow(key.kid, sealer.seal(private_bytes(key), key.kid), 0.0, 0.0)], strict=True)
    return ring
