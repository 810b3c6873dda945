"""What is remembered of API tokens, over a real socket: one question for many, and how long its answer is believed."""

import asyncio
from datetime import UTC, datetime, timedelta

from tests.support.api_tokens import PATH, call, execute, made_token, value
from tests.support.gateway import gateway_under_test, mint_token
from tests.support.postgres import PostgresServer
from tests.support.wire import bearer

SCOPES = {"scopes": ["reports:read", "reports:write"]}


async def test_known_token_passes_while_postgresql_is_away_and_a_new_one_waits(postgres_server: PostgresServer) -> None:
    cache = {"near_ttl": "1ms", "degraded_ttl": "1ms"}
    async with gateway_under_test(postgres_server.url, cache=cache) as gateway:
        known, unknown, ended = [await made_token(gateway) for _ in range(3)]
        await execute(gateway, "UPDATE api_tokens SET revoked_at = now() WHERE id = $1", ended["id"])
        before = [(await gateway.get("/x", bearer(token["token"]))).status for token in (known, ended)]
        await postgres_server.stop()
        await asyncio.sleep(0.01)

        served = [(await gateway.get("/x", bearer(known["token"]))).status for _ in range(3)]
        waits = [await gateway.get("/x", bearer(token["token"])) for token in (unknown, ended)]
        managed = await call(gateway, mint_token(), "GET", PATH)
        current = await call(gateway, mint_token(), "GET", "/users/current")
        stale = await gateway.metric("gateway_cache_requests_total", result="stale")

    assert before == [200, 401]
    assert served == [200, 200, 200]
    assert {(reply.status, reply.code) for reply in (*waits, managed)} == {(503, "store_unavailable")}
    assert (current.status, current.json()["apiTokens"]) == (200, [])
    assert stale >= 1


async def test_known_token_is_believed_for_a_bounded_time_while_postgresql_is_away(
    postgres_server: PostgresServer,
) -> None:
    cache = {"near_ttl": "1ms", "degraded_ttl": "1ms", "stale_if_error": "1ms"}
    async with gateway_under_test(postgres_server.url, cache=cache) as gateway:
        made = await made_token(gateway)
        before = await gateway.get("/x", bearer(made["token"]))
        await postgres_server.stop()
        await asyncio.sleep(0.01)
        after = await gateway.get("/x", bearer(made["token"]))

    assert (before.status, after.status) == (200, 503)


async def test_hundred_first_uses_at_once_are_one_question(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        made = await made_token(gateway)
        scans = (
            "SELECT coalesce(seq_scan, 0) + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 'api_tokens'"
        )
        replies = await asyncio.gather(*(gateway.get("/x", bearer(made["token"])) for _ in range(100)))
        misses = await gateway.metric("gateway_cache_requests_total", result="miss")
        async with asyncio.timeout(10):  # statistics of a connection are written when it is idle
            while (asked := await value(gateway, scans)) == 0:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.05)

    assert {reply.status for reply in replies} == {200}
    assert misses > 1
    assert asked < 20  # those of making it among them


async def test_token_is_refused_after_its_end_also_from_memory(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        soon = datetime.now(UTC) + timedelta(seconds=1.5)
        made = await made_token(gateway, expiresAt=soon.isoformat())
        first = await gateway.get("/x", bearer(made["token"]))
        await asyncio.sleep((soon - datetime.now(UTC)).total_seconds() + 0.05)
        last = await gateway.get("/x", bearer(made["token"]))

    assert (first.status, last.status) == (200, 401)


async def test_scope_that_the_settings_no_longer_name_counts_no_longer(database_url: str) -> None:
    async with gateway_under_test(database_url, tokens=SCOPES) as gateway:
        made = await made_token(gateway, scopes=["reports:read", "reports:write"])
        await gateway.get("/x", bearer(made["token"]))
        before = gateway.upstream.last.one("x-actor-scopes")
        await gateway.reload(tokens={"scopes": ["reports:read"]})
        await gateway.get("/x", bearer(made["token"]))

    assert (before, gateway.upstream.last.one("x-actor-scopes")) == ("reports:read reports:write", "reports:read")
