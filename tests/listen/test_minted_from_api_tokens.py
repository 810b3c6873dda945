"""What an API token had minted lives and ends with it."""

from typing import Any

import pytest

from tests.listen.test_websocket_lives import gateway_before_echo, talking
from tests.support.api_tokens import PATH, call, made_token
from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.websocket_clients import open_with_websockets
from tests.support.websockets import handshake
from tests.support.wire import bearer

ORGANIZATION: dict[str, Any] = {"o": {"id": "org_acme", "rol": "admin", "slg": "acme"}}


async def parent_and_children(gateway: GatewayUnderTest, session: str) -> tuple[dict[str, Any], dict[str, Any]]:
    made = await made_token(gateway, session, scopes=["tokens:mint"])
    reply = await gateway.get("/users/current", bearer(made["token"]))
    return made, reply.json()


@pytest.mark.parametrize("claims", [{}, ORGANIZATION], ids=["personal", "organization"])
async def test_what_it_had_minted_acts_where_it_acts(database_url: str, claims: dict[str, Any]) -> None:
    async with gateway_before_echo(database_url) as gateway:
        made, user = await parent_and_children(gateway, mint_token(**claims))
        async with talking(gateway, open_with_websockets, user["websocketToken"]):
            (live,) = gateway.reloader.home.live._by[("token", made["id"])]

        assert live.actor.organization_id == user["organization"]["id"]
        assert live.actor.principal.scopes == ("tokens:mint",)


async def test_t04_revoking_it_ends_its_websockets_and_its_minted_tokens(database_url: str) -> None:
    session = mint_token()
    async with gateway_before_echo(database_url) as gateway:
        made, user = await parent_and_children(gateway, session)
        agent = bearer(user["agentToken"])
        async with talking(gateway, open_with_websockets, user["websocketToken"]) as client:
            before = await gateway.get("/agents/x", agent)
            revoked = await call(gateway, session, "DELETE", f"{PATH}/{made['id']}")
            code = await client.ended()
        after = await gateway.get("/agents/x", agent)
        again = await gateway.ask(handshake(f"/ws/a?token={user['websocketToken']}"))

    assert (before.status != 401, revoked.status, code) == (True, 204, 4401)
    assert (after.status, again.status) == (401, 401)


async def test_a_strangers_id_ends_nothing_of_its_owner(database_url: str) -> None:
    async with gateway_before_echo(database_url) as gateway:
        made, user = await parent_and_children(gateway, mint_token())
        async with talking(gateway, open_with_websockets, user["websocketToken"]) as client:
            refused = await call(gateway, mint_token(sub="user_2other"), "DELETE", f"{PATH}/{made['id']}")
            await client.send("still here")

            assert (refused.status, await client.receive()) == (404, "still here")


async def test_a_token_that_may_not_revoke_another_of_its_person_ends_nothing_of_it(database_url: str) -> None:
    async with gateway_before_echo(database_url) as gateway:
        kept, user = await parent_and_children(gateway, mint_token(**ORGANIZATION))
        manager = await made_token(gateway, mint_token(), scopes=["tokens:manage"])
        async with talking(gateway, open_with_websockets, user["websocketToken"]) as client:
            refused = await call(gateway, manager["token"], "DELETE", f"{PATH}/{kept['id']}")
            await client.send("still here")

            assert (refused.status, await client.receive()) == (404, "still here")


async def test_t04_websockets_of_a_rotated_token_end_with_the_overlap(database_url: str) -> None:
    session = mint_token()
    async with gateway_before_echo(database_url) as gateway:
        made, user = await parent_and_children(gateway, session)
        async with talking(gateway, open_with_websockets, user["websocketToken"]) as client:
            rotated = await call(gateway, session, "POST", f"{PATH}/{made['id']}/rotate", {"overlapSeconds": 0})

            assert (rotated.status, await client.ended()) == (201, 4401)
