"""What is changed through one gateway counts in the other at once, and within its bound when Redis is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from gateway.commands import tokens, users
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.redis_server import RedisServer
from tests.support.wire import request

ROUTES: list[dict[str, Any]] = [{"path": "/**", "auth": "required", "upstream": "app"}]
OVER = 401


@asynccontextmanager
async def two_gateways(
    database_url: str, redis_url: str, **changes: Any
) -> AsyncIterator[tuple[GatewayUnderTest, GatewayUnderTest]]:
    settings = {"routes": ROUTES, "redis": {"url": redis_url}, **changes}
    async with (
        gateway_under_test(database_url, **settings) as one,
        gateway_under_test(database_url, **settings) as other,
    ):
        yield one, other


async def a_token(gateway: GatewayUnderTest) -> tuple[str, str]:
    """Make an API token; its id and text."""
    session = f"Authorization: Bearer {mint_token()}"
    body = b'{"name": "a token"}'
    made = await gateway.ask(
        request(
            "/users/current/api-tokens",
            session,
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            method="POST",
        )
        + body
    )
    assert made.status == 201, made
    document = orjson.loads(made.body)
    return document["id"], document["token"]


async def revoke(gateway: GatewayUnderTest, token_id: str) -> None:
    session = f"Authorization: Bearer {mint_token()}"
    gone = await gateway.ask(request(f"/users/current/api-tokens/{token_id}", session, method="DELETE"))
    assert gone.status == 204


async def status(gateway: GatewayUnderTest, token: str) -> int:
    return (await gateway.get("/a", f"Authorization: Bearer {token}")).status


async def refused(gateway: GatewayUnderTest, token: str) -> None:
    """Wait until a token is."""
    async with asyncio.timeout(20):
        while await status(gateway, token) != OVER:  # noqa: ASYNC110 - the other process tells nobody when it heard
            await asyncio.sleep(0.01)


async def lag_count(gateway: GatewayUnderTest) -> float:
    told = (await gateway.admin("/metrics")).body.decode()
    return float(next(line for line in told.splitlines() if "lag_seconds_count" in line).split()[-1])


async def test_v01_a_user_whom_an_operator_disables_by_command_is_refused_at_once_and_their_websockets_end(
    database_url: str, redis_url: str
) -> None:
    async with two_gateways(database_url, redis_url, **LONG_LIVES) as (one, other):
        session = mint_token()
        user = orjson.loads((await one.get("/users/current", f"Authorization: Bearer {session}")).body)["id"]
        before = await status(other, session)
        printed = await asyncio.to_thread(users.disable, one.settings, user, as_json=False)
        async with asyncio.timeout(20):
            while await status(other, session) != 403:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    assert before == 200
    assert (printed.out, printed.err) == ((f"{user} USER disabled",), ())


async def test_a_command_says_that_nobody_could_be_told(
    database_url: str, redis_server: RedisServer, redis_url: str
) -> None:
    async with gateway_under_test(database_url, routes=ROUTES, redis={"url": redis_url}) as gateway:
        token_id, _ = await a_token(gateway)
        redis_server.stop()
        printed = await asyncio.to_thread(tokens.revoke, gateway.settings, token_id, as_json=False)
        redis_server.start()

    assert printed.out == (f"{token_id} revoked",)
    assert printed.err == ("running gateways were not told (Redis: unreachable): they see it within cache.near_ttl",)


LONG_LIVES = {"cache": {"near_ttl": "300s", "degraded_ttl": "5s"}}


async def test_v02_a_token_revoked_through_one_gateway_is_refused_by_the_other(
    database_url: str, redis_url: str
) -> None:
    async with two_gateways(database_url, redis_url, **LONG_LIVES) as (one, other):
        token_id, token = await a_token(one)
        before = await status(other, token)
        await revoke(one, token_id)
        await refused(other, token)

        assert before == 200
        assert await lag_count(other) >= 1
        assert await lag_count(one) == 0


async def test_v02_with_redis_dead_the_other_believes_for_no_longer_than_the_degraded_life(
    database_url: str, redis_server: RedisServer, redis_url: str
) -> None:
    lives = {"cache": {"near_ttl": "300s", "degraded_ttl": "1s"}}
    async with two_gateways(database_url, redis_url, **lives) as (one, other):
        token_id, token = await a_token(one)
        before = await status(other, token)
        redis_server.stop()
        try:
            await revoke(one, token_id)
            await refused(other, token)
        finally:
            redis_server.start()

    assert before == 200


async def test_what_was_told_while_redis_was_away_is_told_when_it_is_back(
    database_url: str, redis_server: RedisServer, redis_url: str
) -> None:
    lives = {"cache": {"near_ttl": "300s", "degraded_ttl": "300s"}}
    async with two_gateways(database_url, redis_url, **lives) as (one, other):
        token_id, token = await a_token(one)
        before = await status(other, token)
        redis_server.stop()
        await revoke(one, token_id)
        meanwhile = await status(other, token)
        redis_server.start()
        await refused(other, token)

    assert (before, meanwhile) == (200, 200)


@pytest.mark.parametrize("after", ["kill", "freeze"])
async def test_a_listener_whose_connection_dies_hears_what_it_missed(
    database_url: str, redis_server: RedisServer, redis_url: str, after: str
) -> None:
    lives = {"cache": {"near_ttl": "300s", "degraded_ttl": "300s"}}
    async with two_gateways(database_url, redis_url, **lives) as (one, other):
        token_id, token = await a_token(one)
        before = await status(other, token)
        if after == "kill":
            redis_server.ask(b"CLIENT KILL TYPE pubsub")
            await revoke(one, token_id)
        else:
            redis_server.freeze()
            await revoke(one, token_id)
            redis_server.thaw()
        await refused(other, token)

    assert before == 200
