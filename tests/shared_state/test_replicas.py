"""Two gateways on one Redis and one PostgreSQL: what one has read, the other believes, and no longer than by itself."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.shared_state.client import SharedRedis
from tests.support.api_tokens import PATH, call, execute, made_token, value
from tests.support.counted_postgres import CountedPostgres
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.minted import websocket_token
from tests.support.postgres import PostgresServer
from tests.support.redis_fleets import running
from tests.support.redis_server import RedisServer
from tests.support.websockets import handshake
from tests.support.wire import bearer

RECORDS = ("users", "organizations", "memberships", "api_tokens")
VALUE = rb"gw:[0-9a-f]{64}"
CACHING = Path(__file__).parents[2] / "docs/caching.md"
EVERYTHING: dict[str, Any] = {
    "websocket": {"single_use": True},
    "rate_limits": {"all": {"by": "user", "limit": "100/minute"}},
    "routes": [
        {"path": "/ws/**", "auth": "required", "accept": ["websocket_token"], "upstream": "app"},
        {"path": "/**", "auth": "required", "upstream": "app", "rate_limit": "all"},
    ],
}
RARELY: dict[str, Any] = {"near_ttl": "10m"}
"""Nothing is read again during a test."""


@dataclass(frozen=True)
class Pair:
    one: GatewayUnderTest
    other: GatewayUnderTest


@asynccontextmanager
async def pair(database_url: str, redis_url: str, **changes: Any) -> AsyncIterator[Pair]:
    settings = {"redis": {"url": redis_url}, "cache": RARELY} | changes
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(gateway_under_test(database_url, **settings)) for _ in range(2)]
        yield Pair(*both)


async def asked(server: RedisServer, command: bytes) -> int:
    found = re.search(rb"cmdstat_%b:calls=(\d+)" % command, server.ask(b"INFO commandstats"))
    return int(found[1]) if found is not None else 0


async def shared(gateway: GatewayUnderTest, result: str, kind: str) -> float:
    return await gateway.metric("gateway_cache_requests_total", tier="redis", kind=kind, result=result)


async def written(server: RedisServer, count: int = 1) -> None:
    """Wait until so many values are there: they are written beside requests."""
    async with asyncio.timeout(10):
        while len(re.findall(VALUE, server.ask(b"KEYS gw:*"))) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_known_caller_asks_neither_redis_nor_postgresql(
    database_url: str, redis_url: str, redis_server: RedisServer
) -> None:
    async with CountedPostgres(database_url).running() as postgres, pair(postgres.url, redis_url) as both:
        token = (await made_token(both.one))["token"]
        sessions = [mint_token(), token]
        for credential in sessions:
            await both.one.get("/x", bearer(credential))
        await written(redis_server, 2)
        postgres.texts.clear()
        gets, sets = await asked(redis_server, b"get"), await asked(redis_server, b"psetex")
        statuses = [(await both.one.get("/x", bearer(one))).status for one in sessions * 5]
        after = await asked(redis_server, b"get"), await asked(redis_server, b"psetex")

        assert statuses == [200] * 10
        assert after == (gets, sets)
        assert postgres.statements <= 6  # those beside requests: logins, uses, the outbox's looks
        assert postgres.reads_of(*RECORDS) == []


async def test_what_another_replica_read_costs_one_round_trip_and_no_sql(
    database_url: str, redis_url: str, redis_server: RedisServer
) -> None:
    async with CountedPostgres(database_url).running() as postgres, pair(postgres.url, redis_url) as both:
        token = (await made_token(both.one))["token"]
        for credential in (mint_token(), token):
            await both.one.get("/x", bearer(credential))
        await written(redis_server, 2)
        read = postgres.reads_of(*RECORDS)
        postgres.texts.clear()
        gets = await asked(redis_server, b"get")
        first = [(await both.other.get("/x", bearer(credential))).status for credential in (mint_token(), token)]
        once = await asked(redis_server, b"get")
        again = [(await both.other.get("/x", bearer(credential))).status for credential in (mint_token(), token)]
        hits = [await shared(both.other, "hit", kind) for kind in ("standing", "api_token")]

    assert first == again == [200, 200]
    assert once - gets == 2
    assert hits[1] == 1
    assert hits[0] >= 1
    assert len(read) >= 2
    assert postgres.reads_of(*RECORDS) == []


async def test_a_hundred_requests_at_once_look_once(
    database_url: str, redis_url: str, redis_server: RedisServer
) -> None:
    async with pair(database_url, redis_url) as both:
        token = (await made_token(both.one))["token"]
        await both.one.get("/x", bearer(token))
        await written(redis_server, 2)
        gets = await asked(redis_server, b"get")
        replies = await asyncio.gather(*(both.other.get("/x", bearer(token)) for _ in range(100)))
        looked = await asked(redis_server, b"get") - gets

    assert {reply.status for reply in replies} == {200}
    assert looked == 1


async def test_o02_who_is_new_here_passes_while_postgresql_is_away_if_another_replica_met_them(
    postgres_server: PostgresServer, redis_url: str, redis_server: RedisServer
) -> None:
    settings = {"cache": {"near_ttl": "1ms", "degraded_ttl": "1ms"}}  # nothing is fresh
    async with pair(postgres_server.url, redis_url, **settings) as both:
        token = (await made_token(both.one))["token"]
        for credential in (mint_token(), token):
            await both.one.get("/x", bearer(credential))
        await written(redis_server, 2)
        await postgres_server.stop()
        served = [(await both.other.get("/x", bearer(one))).status for one in (mint_token(), token) * 2]
        stranger = await both.other.get("/x", bearer(mint_token(sub="user_stranger")))

    assert served == [200] * 4
    assert (stranger.status, stranger.code) == (503, "store_unavailable")


async def test_what_is_too_old_is_served_by_nobody(
    postgres_server: PostgresServer, redis_url: str, redis_server: RedisServer
) -> None:
    settings = {"cache": {"near_ttl": "1ms", "degraded_ttl": "1ms", "stale_if_error": "1s"}}
    async with pair(postgres_server.url, redis_url, **settings) as both:
        token = (await made_token(both.one))["token"]
        await both.one.get("/x", bearer(token))
        await written(redis_server)
        await postgres_server.stop()
        await asyncio.sleep(1.1)
        reply = await both.other.get("/x", bearer(token))

    assert (reply.status, reply.code) == (503, "store_unavailable")


async def test_o01_without_redis_sessions_and_api_tokens_pass_from_postgresql(
    database_url: str, redis_url: str, redis_server: RedisServer
) -> None:
    async with pair(database_url, redis_url) as both:
        token = (await made_token(both.one))["token"]
        redis_server.stop()
        try:
            statuses = [(await both.other.get("/x", bearer(one))).status for one in (mint_token(), token)]
        finally:
            redis_server.start()
        unavailable = await shared(both.other, "unavailable", "api_token")
        failures = await both.other.metric("gateway_redis_failures_total")

    assert statuses == [200, 200]
    assert unavailable == 1
    assert failures >= 1


async def test_v02_what_is_revoked_through_one_replica_is_not_brought_back_to_it_by_another(
    database_url: str, redis_url: str, redis_server: RedisServer
) -> None:
    async with pair(database_url, redis_url) as both:
        made = await made_token(both.one)
        before = await both.other.get("/x", bearer(made["token"]))
        await written(redis_server)
        revoked = await both.one.ask(
            f"DELETE /users/current/api-tokens/{made['id']} HTTP/1.1\r\nHost: app.example.com\r\n"
            f"{bearer(mint_token())}\r\n\r\n".encode()
        )
        after = await both.one.get("/x", bearer(made["token"]))

    assert (before.status, revoked.status) == (200, 204)
    assert (after.status, after.code) == (401, "invalid_token")


async def test_v03_a_token_that_ended_is_refused_though_redis_was_told_of_it(
    database_url: str, redis_url: str, redis_server: RedisServer
) -> None:
    async with pair(database_url, redis_url) as both:
        made = await made_token(both.one)
        await execute(both.one, "UPDATE api_tokens SET expires_at = now() + '2 s' WHERE id = $1", made["id"])
        early = await both.one.get("/x", bearer(made["token"]))
        await written(redis_server)
        async with asyncio.timeout(10):
            while (late := await both.other.get("/x", bearer(made["token"]))).status == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        hits = await shared(both.other, "hit", "api_token")

    assert (early.status, late.status) == (200, 401)
    assert hits == 1


async def test_uses_of_a_token_are_noted_where_redis_knew_it(
    database_url: str, redis_url: str, redis_server: RedisServer
) -> None:
    async with pair(database_url, redis_url) as both:
        made = await made_token(both.one)
        await both.one.get("/x", bearer(made["token"]))
        await written(redis_server)
        await execute(both.one, "UPDATE api_tokens SET last_used_at = NULL")
        hits = await shared(both.other, "hit", "api_token")
        await both.other.get("/x", bearer(made["token"]))
        assert await shared(both.other, "hit", "api_token") == hits + 1
        query = "SELECT count(*) FROM api_tokens WHERE id = $1 AND last_used_at IS NOT NULL"
        async with asyncio.timeout(20):
            while not await value(both.one, query, made["id"]):  # noqa: ASYNC110 - written every few seconds
                await asyncio.sleep(0.05)


async def test_c01_what_is_known_in_one_place_is_not_in_another(
    database_url: str, redis_url: str, redis_server: RedisServer
) -> None:
    async with pair(database_url, redis_url) as both:
        session, token = mint_token(), (await made_token(both.one))["token"]
        known = [(await both.one.get("/x", bearer(one))).status for one in (session, token)]
        await written(redis_server, 2)
        misplaced = [
            (await gateway.get("/x", line)).status
            for gateway in (both.one, both.other)
            for line in (f"X-API-Key: {session}", f"Cookie: __session={token}", bearer(token + "0"))
        ]

    assert known == [200, 200]
    assert misplaced == [401] * 6


async def test_c04_what_was_unknown_counts_soon_after_it_was_made(
    database_url: str, redis_url: str, redis_server: RedisServer
) -> None:
    async with pair(database_url, redis_url, cache={"near_ttl": "50ms"}) as both:
        made = await made_token(both.one)
        await execute(both.one, "UPDATE api_tokens SET public_id = 'xxxxxxxxxxxx' WHERE id = $1", made["id"])
        unknown = [(await gateway.get("/x", bearer(made["token"]))).status for gateway in (both.one, both.other)]
        names = re.findall(VALUE, redis_server.ask(b"KEYS gw:*"))
        await execute(both.one, "UPDATE api_tokens SET public_id = $1 WHERE id = $2", made["token"][4:16], made["id"])
        await asyncio.sleep(0.06)
        known = [(await gateway.get("/x", bearer(made["token"]))).status for gateway in (both.one, both.other)]

    assert unknown == [401, 401]
    assert len(names) <= 1  # the owner's standing alone: refusals are remembered here only
    assert known == [200, 200]


@pytest.fixture
async def overheard(redis_server: RedisServer) -> AsyncIterator[list[bytes]]:
    """Everything that Redis is asked while the test runs (MONITOR)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", redis_server.port, limit=2**20)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    heard: list[bytes] = []

    async def listen() -> None:
        while line := await reader.readline():
            heard.append(line)

    listening = asyncio.create_task(listen())
    yield heard
    listening.cancel()
    writer.close()


async def test_c05_neither_what_redis_holds_nor_what_it_is_asked_is_a_credential(
    database_url: str, redis_url: str, redis_server: RedisServer, overheard: list[bytes]
) -> None:
    settings = {"websocket": {"single_use": True}}
    async with pair(database_url, redis_url, **settings) as both:
        token, session = (await made_token(both.one))["token"], mint_token()
        for gateway in (both.one, both.other):
            for credential in (token, session):
                assert (await gateway.get("/x", bearer(credential))).status == 200
        await written(redis_server, 2)
        reading = SharedRedis(redis_url)
        names: list[bytes] = await reading.run(lambda client: client.keys("*"))
        cached = [name for name in names if re.fullmatch(VALUE, name)]
        dump = b"".join(await reading.run(lambda client: client.mget(cached)))
        await reading.close()

    everything = dump + b"".join(names) + b"".join(overheard)
    assert b"usr_" in dump  # it is what we think it is
    assert b"PSETEX" in everything
    for secret in (token, token[16:59], session, session.split(".")[2]):
        assert secret.encode() not in everything
    assert len(cached) == 2


async def test_the_documented_rights_in_redis_are_enough_for_everything_a_gateway_does(
    database_url: str, tmp_path: Path
) -> None:
    rights = re.search(r"^user gateway on .*$", CACHING.read_text(), re.MULTILINE)
    assert rights is not None
    settings = tmp_path / "redis.conf"
    settings.write_text(rights[0] + "\n")
    with running(RedisServer(tmp_path, str(settings))) as server:
        url = server.url.replace("//", "//gateway:a-long-password@")
        async with pair(database_url, url, **EVERYTHING) as both:
            made = await made_token(both.one)
            token = await websocket_token(both.one)
            before = [(await gateway.get("/x", bearer(made["token"]))).status for gateway in (both.one, both.other)]
            used = [(await gateway.ask(handshake(f"/ws/x?token={token}"))).status for gateway in (both.one, both.other)]
            await written(server, 2)
            await call(both.one, mint_token(), "DELETE", f"{PATH}/{made['id']}")
            async with asyncio.timeout(10):
                while (await both.other.get("/x", bearer(made["token"]))).status != 401:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            counted = (await both.one.get("/x", bearer(mint_token()))).get("ratelimit")
            failures = [await gateway.metric("gateway_redis_failures_total") for gateway in (both.one, both.other)]

        assert (before, used) == ([200, 200], [502, 401])  # the upstream of these tests speaks no websockets
        assert counted is not None
        assert failures == [0, 0]
        assert server.ask(b"ACL LOG") == b"*0\r\n"
        assert len(re.findall(rb"\r\ngw:", server.ask(b"KEYS *"))) == int(server.ask(b"DBSIZE")[1:])
