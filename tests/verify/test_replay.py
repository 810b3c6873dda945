"""Single use: the first one in, nobody on a guess."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from gateway.errors import CredentialRejected, VerifierUnavailable
from gateway.shared_state.client import SharedRedis
from gateway.verify.redis_replay import RedisReplayGuard
from gateway.verify.replay import MemoryReplayGuard, ReplayGuard
from tests.support.redis_server import RedisServer


async def outcome(guard: ReplayGuard, token: str, life_s: float = 60) -> str:
    try:
        await guard.use(token, time.time() + life_s)
    except (CredentialRejected, VerifierUnavailable) as error:
        return error.reason
    return "used"


@pytest.fixture
async def shared(redis_url: str) -> AsyncIterator[SharedRedis]:
    shared = SharedRedis(redis_url)
    yield shared
    await shared.close()


@pytest.fixture(params=["memory", "redis"])
def guard(request: pytest.FixtureRequest, shared: SharedRedis) -> ReplayGuard:
    return MemoryReplayGuard(100) if request.param == "memory" else RedisReplayGuard(shared)


async def test_of_many_at_once_one_gets_in(guard: ReplayGuard) -> None:
    outcomes = await asyncio.gather(*(outcome(guard, "a") for _ in range(20)))
    other = await outcome(guard, "b")
    await guard.close()

    assert sorted(outcomes) == ["minted_replayed"] * 19 + ["used"]
    assert other == "used"


async def test_redis_is_one_memory_for_all_and_holds_no_token(redis_server: RedisServer, redis_url: str) -> None:
    ways = SharedRedis(redis_url), SharedRedis(redis_url)

    outcomes = [await outcome(RedisReplayGuard(way), "a-token-id") for way in ways]
    for way in ways:
        await way.close()

    assert outcomes == ["used", "minted_replayed"]
    assert b"a-token-id" not in redis_server.ask(b"KEYS *")
    key = redis_server.ask(b"KEYS *").split(b"\r\n")[2]
    assert 55 <= int(redis_server.ask(b"TTL " + key).strip(b":\r\n")) <= 61


async def test_nobody_gets_in_while_redis_is_away_and_all_do_when_it_is_back(
    redis_server: RedisServer, shared: SharedRedis
) -> None:
    guard = RedisReplayGuard(shared)
    before = await outcome(guard, "a")
    redis_server.stop()
    while_away = await outcome(guard, "b")
    redis_server.start()
    tokens = (f"c{number}" for number in range(400))
    async with asyncio.timeout(20):
        while await outcome(guard, next(tokens)) != "used":  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    assert (before, while_away) == ("used", "replay_guard_unavailable")


async def test_full_memory_lets_nobody_in_until_something_expired() -> None:
    now = [0.0]
    guard = MemoryReplayGuard(2, clock=lambda: now[0])
    for token in ("a", "b"):
        await guard.use(token, 10.0)

    with pytest.raises(VerifierUnavailable):
        await guard.use("c", 10.0)
    now[0] = 11.0
    await guard.use("c", 20.0)
    with pytest.raises(CredentialRejected):
        await guard.use("c", 20.0)
