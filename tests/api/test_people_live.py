"""What an administrator's change ends, here and in other processes; and who becomes the first one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.api_tokens import call, value
from tests.support.clerk_backend import SECRET_KEY, ClerkBackend
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.minted import ROUTES, websocket_token
from tests.support.people import administrator, met
from tests.support.websocket_clients import WebsocketClient, open_with_websockets
from tests.support.websockets import echo_server
from tests.support.wire import bearer

BOSS = "user_2boss"
EMAIL = "alice@example.com"


@asynccontextmanager
async def gateway_before_echo(database_url: str) -> AsyncIterator[GatewayUnderTest]:
    async with (
        echo_server() as url,
        gateway_under_test(database_url, upstreams={"app": {"url": url}}, routes=ROUTES) as gateway,
    ):
        await administrator(gateway, BOSS)
        yield gateway


@asynccontextmanager
async def talking(gateway: GatewayUnderTest, sub: str) -> AsyncIterator[WebsocketClient]:
    token = await websocket_token(gateway, sub=sub)
    async with open_with_websockets(f"ws://127.0.0.1:{gateway.port}/ws/a?token={token}") as client:
        await client.send("hello")
        assert await client.receive() == "hello"
        yield client


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", "disable", None), ("PATCH", "role", {"role": "ADMIN"})],
    ids=["disabled", "another role"],
)
async def test_w07_websockets_of_a_changed_person_end_and_others_stay(
    database_url: str, method: str, path: str, body: object
) -> None:
    async with gateway_before_echo(database_url) as gateway:
        user_id = await met(gateway, "user_2ends")
        async with talking(gateway, "user_2ends") as theirs, talking(gateway, "user_2stays") as others:
            reply = await call(gateway, mint_token(sub=BOSS), method, f"/admin/users/{user_id}/{path}", body)
            code = await theirs.ended()
            await others.send("still")
            still = await others.receive()

    assert (reply.status, code, still) == (200, 4401, "still")


async def test_w07_a_refused_change_ends_nothing(database_url: str) -> None:
    async with gateway_before_echo(database_url) as gateway:
        me = await met(gateway, BOSS)
        async with talking(gateway, BOSS) as mine:
            reply = await call(gateway, mint_token(sub=BOSS), "POST", f"/admin/users/{me}/disable")
            await mine.send("still")
            still = await mine.receive()

    assert (reply.status, still) == (409, "still")


async def test_v01_another_process_sees_a_change_within_the_setting(database_url: str) -> None:
    session = mint_token(sub="user_2elsewhere")
    async with (
        gateway_under_test(database_url) as here,
        gateway_under_test(database_url, cache={"near_ttl": "1ms", "degraded_ttl": "1ms"}) as there,
    ):
        await administrator(here, BOSS)
        user_id = await met(there, "user_2elsewhere")
        await call(here, mint_token(sub=BOSS), "POST", f"/admin/users/{user_id}/disable")
        await asyncio.sleep(0.002)  # longer than anything is remembered there
        refused = await there.get("/x", bearer(session))

    assert (refused.status, refused.code) == (403, "user_disabled")


def bootstrapped(clerk: ClerkBackend, secret_key: str | None = SECRET_KEY) -> dict[str, Any]:
    told = {"api_url": clerk.url} | ({"secret_key": secret_key} if secret_key is not None else {})
    return {"clerk": told, "bootstrap": {"admin_emails": [EMAIL]}}


async def test_the_first_answer_to_a_named_person_says_that_they_administer(database_url: str) -> None:
    async with ClerkBackend().running() as clerk:
        clerk.add_user("user_2first")
        async with gateway_under_test(database_url, **bootstrapped(clerk)) as gateway:
            user = (await call(gateway, mint_token(sub="user_2first"), "GET", "/users/current")).json()
            listed = await call(gateway, mint_token(sub="user_2first"), "GET", "/admin/users")

    assert (user["role"], user["isAdmin"], listed.status) == ("ADMIN", True, 200)
    assert len(clerk.asked) == 1


async def test_a_known_person_administers_after_a_reload_that_names_them(database_url: str) -> None:
    async with ClerkBackend().running() as clerk:
        clerk.add_user("user_2known")
        settings: dict[str, Any] = {"cache": {"near_ttl": "1ms", "degraded_ttl": "1ms"}}
        async with gateway_under_test(database_url, **settings) as gateway:
            user_id = await met(gateway, "user_2known")
            assert await gateway.reload(**bootstrapped(clerk))
            await met(gateway, "user_2known")
            async with asyncio.timeout(10):
                while await value(gateway, "SELECT role FROM users WHERE id = $1", user_id) != "ADMIN":  # noqa: ASYNC110 - PostgreSQL announces nothing
                    await asyncio.sleep(0.01)
            user = (await call(gateway, mint_token(sub="user_2known"), "GET", "/users/current")).json()

    assert user["role"] == "ADMIN"


async def test_v01_who_administers_by_the_settings_does_so_everywhere_at_once(
    database_url: str, redis_url: str
) -> None:
    redis: dict[str, Any] = {"redis": {"url": redis_url}}
    reads: dict[str, Any] = {**redis, "cache": {"near_ttl": "1s", "degraded_ttl": "1s"}}
    session = mint_token(sub="user_2named")
    async with (
        ClerkBackend().running() as clerk,
        gateway_under_test(database_url, **reads) as here,
        gateway_under_test(database_url, **redis, cache={"near_ttl": "10m"}) as there,
    ):
        clerk.add_user("user_2named")
        before = [(await call(one, session, "GET", "/users/current")).json()["role"] for one in (here, there)]
        assert await here.reload(**reads, **bootstrapped(clerk))
        async with asyncio.timeout(20):
            for one in (here, there):
                while (await call(one, session, "GET", "/users/current")).json()["role"] != "ADMIN":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    assert before == ["USER", "USER"]


async def test_without_a_key_for_clerk_nobody_is_promoted(database_url: str) -> None:
    async with ClerkBackend().running() as clerk:
        clerk.add_user("user_2unproven")
        async with gateway_under_test(database_url, **bootstrapped(clerk, None)) as gateway:
            claims: dict[str, Any] = {"sub": "user_2unproven", "email": EMAIL, "name": "Alice"}
            user = (await call(gateway, mint_token(**claims), "GET", "/users/current")).json()

    assert (user["email"], user["role"]) == (EMAIL, "USER")
    assert clerk.asked == []
