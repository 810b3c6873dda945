"""Rights that ended, held on to: by another process that still believes in them, and in the middle of a check."""

import asyncio
from typing import Any

import pytest

from tests.listen.test_websocket_lives import gateway_before_echo, talking
from tests.support.api_tokens import PATH, call, made_token, value
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.minted import claims_of
from tests.support.upstream import until
from tests.support.websocket_clients import open_with_websockets
from tests.support.websockets import handshake
from tests.support.wire import bearer

SCOPES: dict[str, Any] = {"tokens": {"scopes": ["reports:read"]}}
COUNT = "SELECT count(*) FROM api_tokens WHERE revoked_at IS NULL AND replaced_by IS NULL"


async def believed(gateway: GatewayUnderTest, token: str) -> None:
    """Let a process remember a token."""
    assert (await gateway.get("/x", bearer(token))).status == 200


@pytest.mark.parametrize("action", ["create", "rotate itself", "rotate", "rename", "reveal", "revoke"])
async def test_v02_revoked_token_changes_nothing_where_it_is_still_believed(database_url: str, action: str) -> None:
    """Else whoever found a token could have another by the time it is revoked everywhere."""
    session = mint_token()
    async with (
        gateway_under_test(database_url, **SCOPES) as here,
        gateway_under_test(database_url, **SCOPES) as there,
    ):
        leaked = await made_token(here, session, scopes=["tokens:manage", "reports:read"])
        other = await made_token(here, session)
        first = await value(here, "SELECT id FROM api_tokens WHERE sealed_secret IS NOT NULL")
        await believed(there, leaked["token"])
        assert (await call(here, session, "DELETE", f"{PATH}/{leaked['id']}")).status == 204
        left = await value(here, COUNT)
        method, target, body = {
            "create": ("POST", PATH, {"name": "Mine now", "scopes": ["tokens:manage"]}),
            "rotate itself": ("POST", f"{PATH}/{leaked['id']}/rotate", None),
            "rotate": ("POST", f"{PATH}/{other['id']}/rotate", None),
            "rename": ("PATCH", f"{PATH}/{other['id']}", {"name": "Gone"}),
            "reveal": ("POST", f"{PATH}/{first}/reveal", None),
            "revoke": ("DELETE", f"{PATH}/{other['id']}", None),
        }[action]
        reply = await call(there, leaked["token"], method, target, body)

        assert reply.status == (409 if action == "rotate itself" else 401)
        assert await value(here, COUNT) == left
        names = {item["name"] for item in (await call(here, session, "GET", PATH)).json()["items"]}
        assert names == {"Robot", "First token"}


async def test_t07_narrowed_token_gives_nothing_away_where_it_is_still_believed_to_be_wide(database_url: str) -> None:
    session = mint_token()
    async with (
        gateway_under_test(database_url, **SCOPES) as here,
        gateway_under_test(database_url, **SCOPES) as there,
    ):
        token = await made_token(here, session, scopes=["tokens:manage", "reports:read"])
        await believed(there, token["token"])
        narrowed = await call(here, session, "PATCH", f"{PATH}/{token['id']}", {"scopes": ["tokens:manage"]})
        wide = await call(there, token["token"], "POST", PATH, {"name": "Wide", "scopes": ["reports:read"]})
        own = await call(there, token["token"], "PATCH", f"{PATH}/{token['id']}", {"scopes": ["reports:read"]})
        narrow = await call(there, token["token"], "POST", PATH, {"name": "Narrow", "scopes": []})

    assert narrowed.status == 200
    assert (wide.status, own.status, narrow.status) == (403, 403, 201)
    assert wide.challenge.error == "insufficient_scope"


async def test_t07_token_that_may_manage_no_longer_manages_nothing_where_it_is_still_believed_to(
    database_url: str,
) -> None:
    session = mint_token()
    async with gateway_under_test(database_url) as here, gateway_under_test(database_url) as there:
        token = await made_token(here, session, scopes=["tokens:manage"])
        await believed(there, token["token"])
        await call(here, session, "PATCH", f"{PATH}/{token['id']}", {"scopes": []})
        reply = await call(there, token["token"], "POST", PATH, {"name": "Another", "scopes": []})

    assert (reply.status, reply.challenge.error) == (403, "insufficient_scope")


async def test_t04_websockets_end_with_the_token_that_a_second_rotation_ends(database_url: str) -> None:
    session = mint_token()
    async with gateway_before_echo(database_url) as gateway:
        first = await made_token(gateway, session, scopes=["tokens:mint"])
        minted = (await gateway.get("/users/current", bearer(first["token"]))).json()["websocketToken"]
        async with talking(gateway, open_with_websockets, minted) as client:
            second = (await call(gateway, session, "POST", f"{PATH}/{first['id']}/rotate")).json()
            await call(gateway, session, "POST", f"{PATH}/{second['id']}/rotate")

            assert await client.ended() == 4401


async def test_agent_token_of_an_administrators_token_has_no_scope_of_administrators(database_url: str) -> None:
    async with gateway_before_echo(database_url) as gateway:
        session = mint_token()
        await gateway.get("/users/current", bearer(session))
        await value(gateway, "UPDATE users SET role = 'ADMIN' RETURNING 1")
    async with gateway_under_test(database_url, routes=AGENTS) as gateway:
        made = await made_token(gateway, session, scopes=["admin", "tokens:mint"])
        user = (await gateway.get("/users/current", bearer(made["token"]))).json()
        agent = user["agentToken"]
        refused = await gateway.get("/admins/x", bearer(agent))
        passed = await gateway.get("/agents/x", bearer(agent))

    assert claims_of(user["websocketToken"])["scopes"] == ["admin", "tokens:mint"]
    assert claims_of(agent)["scopes"] == ["tokens:mint"]
    assert (refused.status, passed.status) == (403, 200)
    assert gateway.upstream.last.one("x-actor-scopes") == "tokens:mint"


AGENTS: list[dict[str, Any]] = [
    {"path": f"/{path}/**", "auth": "required", "accept": ["agent_token"], "scopes": scopes, "upstream": "app"}
    for path, scopes in (("admins", ["admin"]), ("agents", []))
] + [{"path": "/**", "auth": "required", "upstream": "app"}]


async def test_w07_websocket_does_not_open_on_what_was_revoked_while_a_lesser_credential_was_checked(
    database_url: str,
) -> None:
    """The client chooses how long that takes: a cookie whose key is unknown makes the gateway ask for keys."""
    session = mint_token()
    async with gateway_before_echo(database_url, clerk={"jwks": {"cooldown": "1s"}}) as gateway:
        made = await made_token(gateway, session)
        await asyncio.sleep(1)  # so that keys may be asked for again
        gateway.jwks.gate.clear()
        fetches = gateway.jwks.fetches
        cookie = f"Cookie: __session={mint_token(kid='ins_unknown')}; __client_uat=1"
        async with gateway.wire() as wire:
            await wire.send(handshake("/x", bearer(made["token"]), cookie))
            await until(lambda: gateway.jwks.fetches > fetches)
            revoked = await call(gateway, session, "DELETE", f"{PATH}/{made['id']}")
            gateway.jwks.gate.set()
            head = await wire.reader.readuntil(b"\r\n\r\n")

            assert revoked.status == 204
            assert not head.startswith(b"HTTP/1.1 101") or await wire.reader.readexactly(4) == b"\x88\x09\x11\x31"
