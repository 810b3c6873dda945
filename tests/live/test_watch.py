"""Websockets end when the rights of who opened them change in the records, whoever changed them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect

from gateway.live.registry import Registry
from gateway.live.watch import Watch
from provisioning.database.pool import Database
from provisioning.endings import Endings
from tests.support.api_tokens import call, execute, made_token
from tests.support.clerk_keys import SUBJECT
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.minted import ROUTES, current_user
from tests.support.upstream import until
from tests.support.websocket_clients import OfWebsockets, WebsocketClient, open_with_websockets
from tests.support.websockets import echo_server
from tests.support.wire import bearer

BY_TOKEN = {"path": "/tokens/**", "auth": "required", "accept": ["api_token", "websocket_token"], "upstream": "app"}


@asynccontextmanager
async def gateway_before_echo(database_url: str) -> AsyncIterator[GatewayUnderTest]:
    async with (
        echo_server() as url,
        gateway_under_test(database_url, upstreams={"app": {"url": url}}, routes=[BY_TOKEN, *ROUTES]) as gateway,
    ):
        yield gateway


@asynccontextmanager
async def talking(gateway: GatewayUnderTest, sub: str) -> AsyncIterator[WebsocketClient]:
    user = await current_user(gateway, sub=sub)
    async with open_with_websockets(f"ws://127.0.0.1:{gateway.port}/ws/a?token={user['websocketToken']}") as client:
        await client.send("hello")
        assert await client.receive() == "hello"
        yield client


@asynccontextmanager
async def watching(gateway: GatewayUnderTest, database_url: str) -> AsyncIterator[Watch]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as database:
        yield Watch(gateway.reloader.home.live, Endings(database), 30.0, 5.0)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE users SET disabled_at = now() WHERE clerk_id = 'user_2ends'",
        "UPDATE users SET deleted_at = now() WHERE clerk_id = 'user_2ends'",
        "UPDATE users SET role = 'ADMIN' WHERE clerk_id = 'user_2ends'",
        "DELETE FROM memberships USING users u WHERE u.id = user_id AND clerk_id = 'user_2ends'",
    ],
    ids=["disabled", "deleted", "another role", "no member any more"],
)
async def test_w07_websocket_of_somebody_whose_rights_changed_ends(database_url: str, statement: str) -> None:
    async with (
        gateway_before_echo(database_url) as gateway,
        watching(gateway, database_url) as watch,
        talking(gateway, "user_2ends") as theirs,
        talking(gateway, "user_2stays") as others,
    ):
        before = await watch.look()
        await execute(gateway, statement)
        ended = await watch.look()
        code = await theirs.ended()
        await others.send("still")

        assert (before, ended, code) == (0, 1, 4401)
        assert await others.receive() == "still"


async def test_w07_websocket_of_a_session_is_watched_too(database_url: str) -> None:
    async with gateway_before_echo(database_url) as gateway, watching(gateway, database_url) as watch:
        line = bearer(mint_token(sub="user_2session"))
        headers = {"Authorization": line.partition(": ")[2]}
        async with connect(f"ws://127.0.0.1:{gateway.port}/ws/a", additional_headers=headers, proxy=None) as connection:
            client = OfWebsockets(connection)
            await client.send("hello")
            await client.receive()
            before = await watch.look()
            await execute(gateway, "UPDATE users SET disabled_at = now()")

            assert (before, await watch.look(), await client.ended()) == (0, 1, 4401)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE api_tokens SET revoked_at = now() WHERE id = $1",
        "UPDATE api_tokens SET expires_at = now() WHERE id = $1",
        "DELETE FROM api_tokens WHERE id = $1",
    ],
    ids=["revoked", "expired", "reaped"],
)
async def test_v02_websockets_of_an_api_token_that_ended_end_and_no_others(database_url: str, statement: str) -> None:
    async with gateway_before_echo(database_url) as gateway, watching(gateway, database_url) as watch:
        ended, other = await made_token(gateway, scopes=["tokens:mint"]), await made_token(gateway)
        minted = await call(gateway, ended["token"], "POST", "/users/current/websocket-token")
        socket = f"ws://127.0.0.1:{gateway.port}/tokens/a"
        async with (
            connect(socket, additional_headers={"X-API-Key": ended["token"]}, proxy=None) as by_itself,
            connect(f"{socket}?token={minted.json()['token']}", proxy=None) as by_minted,
            connect(socket, additional_headers={"X-API-Key": other["token"]}, proxy=None) as others,
            talking(gateway, SUBJECT) as of_session,
        ):
            before = await watch.look()
            await execute(gateway, statement, ended["id"])
            count = await watch.look()
            codes = [await OfWebsockets(end).ended() for end in (by_itself, by_minted)]
            for client in (OfWebsockets(others), of_session):
                await client.send("still")

                assert await client.receive() == "still"

        assert (before, count, codes) == (0, 2, [4401, 4401])


async def test_nobody_is_looked_at_while_nothing_is_open(database_url: str) -> None:
    async with Database(database_url) as database:
        watch = Watch(Registry(), Endings(database), 30.0, 5.0)

        assert await watch.look() == 0
        assert database.connections_lent == 0


async def test_a_gateway_looks_by_itself(database_url: str) -> None:
    async with (
        echo_server() as url,
        gateway_under_test(
            database_url, upstreams={"app": {"url": url}}, routes=ROUTES, cache={"near_ttl": "1s"}
        ) as gateway,
        talking(gateway, "user_2ends") as client,
    ):
        await execute(gateway, "UPDATE users SET disabled_at = now()")

        assert await client.ended() == 4401


async def test_a_gateway_looks_at_once_when_something_may_have_been_missed(database_url: str) -> None:
    async with gateway_before_echo(database_url) as gateway, talking(gateway, "user_2ends") as client:
        await execute(gateway, "UPDATE users SET disabled_at = now()")
        gateway.reloader.home.live.doubted.set()

        assert await client.ended() == 4401


async def test_a_gateway_out_of_touch_looks_as_often_as_it_believes_then(database_url: str) -> None:
    async with (
        echo_server() as url,
        gateway_under_test(
            database_url, upstreams={"app": {"url": url}}, routes=ROUTES, cache={"near_ttl": "1h", "degraded_ttl": "1s"}
        ) as gateway,
        talking(gateway, "user_2ends") as client,
    ):
        live = gateway.reloader.home.live
        live.in_touch = False
        live.doubted.set()
        await until(lambda: not live.doubted.is_set())
        await execute(gateway, "UPDATE users SET disabled_at = now()")

        assert await client.ended() == 4401
