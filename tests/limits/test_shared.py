"""Limits that several gateways share through Redis, and what happens while it is away."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_tokens import written_token
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.redis_fleets import redis_cluster
from tests.support.redis_server import RedisServer
from tests.support.wire import bearer

WAYS = ("open", "closed", "local")
LIMITED: dict[str, Any] = {
    "trusted_proxies": ["127.0.0.0/8"],
    "rate_limits": {
        **{way: {"limit": "5/minute", "when_unavailable": way} for way in WAYS},
        "here": {"limit": "5/minute", "by": "address"},
        "guesses": {"limit": "5/minute", "counts": "failed_credentials", "when_unavailable": "local"},
    },
    "routes": [
        *({"path": f"/{name}", "auth": "required", "upstream": "app", "rate_limit": name} for name in (*WAYS, "here")),
        {"path": "/both", "auth": "required", "upstream": "app", "rate_limit": ["here", "closed", "local"]},
        {"path": "/**", "auth": "required", "upstream": "app"},
    ],
}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server to stop and start."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@asynccontextmanager
async def gateways(
    count: int, database_url: str, redis_url: str, **changes: Any
) -> AsyncIterator[list[GatewayUnderTest]]:
    settings = LIMITED | {"redis": {"url": redis_url}} | changes
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(gateway_under_test(database_url, **settings)) for _ in range(count)]


async def statuses(gateway: GatewayUnderTest, times: int, target: str, *lines: str) -> list[int]:
    return [(await gateway.get(target, *lines)).status for _ in range(times)]


async def test_two_gateways_share_one_limit_exactly(database_url: str, redis: RedisServer, fast_lane: bool) -> None:
    token = bearer(mint_token())
    async with gateways(2, database_url, redis.url, fast_lane=fast_lane) as both:
        for gateway in both:
            await gateway.get("/free", token)
        replies = await asyncio.gather(*(both[turn % 2].get("/open", token) for turn in range(30)))
        after = [await gateway.get("/open", token) for gateway in both]
        here = [(await statuses(both[turn % 2], 1, "/here", token))[0] for turn in range(7)]

    assert sorted(reply.status for reply in replies) == [200] * 5 + [429] * 25
    assert [reply.status for reply in after] == [429, 429]
    left = [reply.get("ratelimit") or "" for reply in replies if reply.status == 200]
    assert sorted(value.split(";")[1] for value in left) == ["r=0", "r=1", "r=2", "r=3", "r=4"]
    assert after[0].get("ratelimit-policy") == '"open";q=5;w=60'
    assert here == [200] * 5 + [429] * 2


async def test_while_redis_is_away_each_limit_does_as_it_says_and_never_401(
    database_url: str, redis: RedisServer, fast_lane: bool
) -> None:
    token = bearer(mint_token())
    async with gateways(1, database_url, redis.url, fast_lane=fast_lane) as (gateway,):
        await gateway.get("/free", token)
        redis.stop()
        away = {way: [await gateway.get(f"/{way}", token) for _ in range(8)] for way in WAYS}
        counted = await gateway.metric("gateway_rate_limiter_unavailable_total", rule="open")
        free = await gateway.get("/free", token)
        redis.start()
        async with asyncio.timeout(10):
            while (back := await gateway.get("/closed", token)).status == 503:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)

    assert [reply.status for reply in away["open"]] == [200] * 8
    assert [reply.status for reply in away["closed"]] == [503] * 8
    assert [reply.status for reply in away["local"]] == [200] * 5 + [429] * 3
    assert away["open"][0].get("ratelimit") is None
    assert away["closed"][0].code == "rate_limiter_unavailable"
    assert away["closed"][0].get("retry-after") == "1"
    assert counted == 8
    assert (free.status, back.status) == (200, 200)


async def test_guesses_are_stopped_at_all_gateways_and_while_redis_is_away(
    database_url: str, redis: RedisServer
) -> None:
    def guess() -> str:
        return bearer(written_token(secrets.token_hex(6), secrets.token_hex(22)[:43]))

    one, two = "X-Forwarded-For: 203.0.113.1", "X-Forwarded-For: 203.0.113.2"
    async with gateways(2, database_url, redis.url) as both:
        found = [(await statuses(both[turn % 2], 1, "/free", one, guess()))[0] for turn in range(9)]
        redis.stop()
        alone = [(await statuses(both[0], 1, "/free", two, guess()))[0] for _ in range(7)]

    assert found == [401] * 5 + [429] * 4
    assert alone == [401] * 5 + [429] * 2


async def test_redis_learns_no_address_no_id_and_no_token(database_url: str, redis: RedisServer) -> None:
    session = mint_token()
    async with gateways(1, database_url, redis.url) as (gateway,):
        user = (await gateway.get("/users/current", bearer(session))).json()
        for path in ("/open", "/here", "/both"):
            await gateway.get(path, bearer(session), "X-Forwarded-For: 203.0.113.77")
        await gateway.get("/free", bearer("a.b.c"), "X-Forwarded-For: 203.0.113.77")
    kept = redis.ask(b"KEYS *")

    assert kept.count(b"gw:limit:") == 5
    for secret in (session, user["id"], user["clerkId"], user["organization"]["id"], "203.0.113.77"):
        assert secret.encode() not in kept


async def test_a_limited_request_asks_redis_once_for_each_limit_and_others_never(
    database_url: str, redis: RedisServer
) -> None:
    def asked() -> int:
        text = redis.ask(b"INFO commandstats").decode()
        lines = [line for line in text.splitlines() if line.startswith(("cmdstat_evalsha:", "cmdstat_eval:"))]
        return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in lines)

    token = bearer(mint_token())
    async with gateways(1, database_url, redis.url) as (gateway,):
        await gateway.get("/open", token)
        before = asked()
        await statuses(gateway, 10, "/free", token)
        free = asked() - before
        await statuses(gateway, 4, "/open", token)
        limited = asked() - before
        await statuses(gateway, 10, "/open", token)
        exhausted = asked() - before - limited

    assert (free, limited) == (0, 4)
    assert exhausted == 1  # who has nothing left is known here


async def test_a_cluster_counts_as_one_server_does(database_url: str, tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as nodes:
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        async with gateways(1, database_url, url) as (gateway,):
            found = await statuses(gateway, 7, "/both", bearer(mint_token()))

    assert found == [200] * 5 + [429] * 2
