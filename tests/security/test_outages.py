"""Stores that stop and come back: known people pass, others wait, nobody is let in or turned away by mistake."""

import asyncio
import time
from typing import Any

import pytest

from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.jwks_server import status_500
from tests.support.postgres import PostgresServer
from tests.support.wire import Reply, bearer, request

DEADLINE_S = 20.0
FORGETFUL: dict[str, Any] = {"cache": {"near_ttl": "1ms", "degraded_ttl": "1ms"}}


async def ask(gateway: GatewayUnderTest, target: str = "/x", **claims: Any) -> Reply:
    await asyncio.sleep(0.002)  # longer than anything is remembered
    return await gateway.get(target, bearer(mint_token(**claims)))


async def until(gateway: GatewayUnderTest, status: int, **claims: Any) -> Reply:
    """Ask until the answer has this status."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            reply = await ask(gateway, **claims)
            if reply.status == status:
                return reply
            await asyncio.sleep(0.05)


def is_unavailable(reply: Reply) -> bool:
    """Whether the answer asks to come back, without a word on the credential."""
    return (
        (reply.status, reply.code) == (503, "store_unavailable")
        and int(reply.get("retry-after") or 0) >= 1
        and reply.all("www-authenticate") == []
    )


async def test_o02_known_people_pass_while_postgresql_is_away_and_all_is_well_after(
    postgres_server: PostgresServer,
) -> None:
    async with gateway_under_test(postgres_server.url, **FORGETFUL) as gateway:
        await ask(gateway)
        await postgres_server.stop()

        known, unknown = await ask(gateway), await ask(gateway, sub="user_2new")
        own = await ask(gateway, "/users/current")
        organization = await ask(gateway, "/organizations/current")
        settings = await gateway.ask(
            request(
                "/users/current/settings",
                bearer(mint_token()),
                "Content-Type: application/json",
                method="PATCH",
                body=b"{}",
            )
        )
        anonymous = await gateway.get("/public/x")
        bad = await ask(gateway, exp=int(time.time()) - 60)
        ready, alive = await gateway.admin("/readyz"), await gateway.admin("/healthz")

        assert (known.status, anonymous.status, bad.status) == (200, 200, 401)
        assert (own.status, organization.status) == (200, 200)
        assert own.json()["id"] == gateway.upstream.received[0].one("x-actor-id")
        assert is_unavailable(unknown)
        assert is_unavailable(settings)
        assert (ready.status, alive.status) == (503, 200)
        assert ready.json()["checks"] == {"database": "unavailable", "signing_keys": "ok"}
        assert await gateway.metric("gateway_cache_requests_total", result="stale") > 0

        await postgres_server.start(migrated=False)
        await until(gateway, 200, sub="user_2new")

        assert (await ask(gateway)).status == 200
        assert (await gateway.admin("/readyz")).status == 200


async def test_o02_frozen_postgresql_keeps_nobody_waiting_for_ever(postgres_server: PostgresServer) -> None:
    async with gateway_under_test(postgres_server.url, **FORGETFUL) as gateway:
        await ask(gateway)
        postgres_server.freeze()
        try:
            known, unknown = await asyncio.gather(ask(gateway), ask(gateway, sub="user_2frozen"))
        finally:
            postgres_server.thaw()

        assert known.status == 200
        assert is_unavailable(unknown)
        await until(gateway, 200, sub="user_2frozen")


async def test_o02_nobody_is_remembered_beyond_the_limit(postgres_server: PostgresServer) -> None:
    cache = {"near_ttl": "1ms", "degraded_ttl": "1ms", "stale_if_error": "300ms"}
    async with gateway_under_test(postgres_server.url, cache=cache) as gateway:
        await ask(gateway)
        await postgres_server.stop()

        assert is_unavailable(await until(gateway, 503))


@pytest.mark.parametrize("target", ["/x", "/users/current"])
async def test_o02_without_keys_and_records_nobody_is_let_in(postgres_server: PostgresServer, target: str) -> None:
    async with gateway_under_test(postgres_server.url, jwks_answer=status_500) as gateway:
        await postgres_server.stop()

        reply = await ask(gateway, target)

        assert reply.status == 503
        assert gateway.upstream.received == []


async def test_keys_that_are_away_serve_known_and_new_people_from_memory(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        await ask(gateway)
        gateway.jwks.answer = status_500

        replies = [await ask(gateway), await ask(gateway, sub="user_2withoutKeys")]
        ready = await gateway.admin("/readyz")

    assert [reply.status for reply in replies] == [200, 200]
    assert ready.json() == {"status": "ok", "checks": {"database": "ok", "signing_keys": "ok"}}


async def test_gateway_that_never_had_keys_is_alive_and_not_ready(database_url: str) -> None:
    async with gateway_under_test(database_url, jwks_answer=status_500) as gateway:
        ready, alive = await gateway.admin("/readyz"), await gateway.admin("/healthz")

    assert ready.status == 503
    assert ready.json()["checks"] == {"database": "ok", "signing_keys": "unavailable"}
    assert alive.status == 200
