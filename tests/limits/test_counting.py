"""What passes: never more than the limit within any window, whoever counts, and in bounded memory."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.model import RateLimit
from config.rates import Rate
from gateway.limits.memory import MemoryCounter
from gateway.limits.rules import SEGMENTS, Rule
from gateway.limits.shared import RedisCounter
from gateway.shared_state.client import SharedRedis
from tests.support.redis_server import RedisServer


def rule(limit: int, window_s: float) -> Rule:
    return Rule.of("api", RateLimit(limit=Rate(limit, window_s)))


@pytest.fixture
async def shared(redis_url: str) -> AsyncIterator[SharedRedis]:
    one = SharedRedis(redis_url)
    yield one
    await one.close()


@given(
    limit=st.integers(1, 3 * SEGMENTS),
    window_s=st.floats(0.1, 1000),
    steps=st.lists(st.one_of(st.just(0.0), st.floats(0, 0.02), st.floats(0, 0.6)), max_size=400),
)
def test_no_more_than_the_limit_pass_within_any_window(limit: int, window_s: float, steps: list[float]) -> None:
    now, passed = 1e6, []
    counter = MemoryCounter(10, lambda: now)
    for step in steps:
        now += step * window_s
        verdict = counter.take(b"key", rule(limit, window_s))
        if verdict.allowed:
            passed.append(now)
        else:
            assert 0 < verdict.wait_s <= window_s * 1.0001

    for first, later in zip(passed, passed[limit:], strict=False):
        assert later - first >= window_s * 0.9999


@given(limit=st.integers(1, 3 * SEGMENTS), window_s=st.floats(0.1, 1000))
def test_who_waits_as_long_as_told_passes_and_nobody_earlier(limit: int, window_s: float) -> None:
    now = 5.0
    counter = MemoryCounter(10, lambda: now)
    for left in reversed(range(limit)):
        assert counter.take(b"key", rule(limit, window_s)).remaining == left
        now += window_s / limit / 3
    refused = counter.take(b"key", rule(limit, window_s))
    now += refused.wait_s * 0.999
    early = counter.take(b"key", rule(limit, window_s))
    now += refused.wait_s * 0.0011

    assert not refused.allowed
    assert not early.allowed
    assert counter.take(b"key", rule(limit, window_s)).allowed


def test_keys_do_not_share_a_count_and_are_bounded() -> None:
    counter = MemoryCounter(100, lambda: 1.0)
    verdicts = [counter.take(b"%d" % number, rule(1, 60)) for number in range(10_000)]

    assert all(verdict.allowed for verdict in verdicts)
    assert not counter.take(b"9999", rule(1, 60)).allowed
    assert len(counter) == 100


async def test_redis_lets_exactly_the_limit_pass_however_many_ask_at_once(shared: SharedRedis) -> None:
    counters = [RedisCounter(shared), RedisCounter(shared)]
    verdicts = await asyncio.gather(*(counters[turn % 2].take(b"key", rule(50, 60)) for turn in range(60)))

    assert sorted(verdict.remaining for verdict in verdicts if verdict.allowed) == list(range(50))
    assert all(59 < verdict.wait_s <= 60 for verdict in verdicts)


async def test_redis_counts_what_this_process_counts(shared: SharedRedis) -> None:
    counter, wanted = RedisCounter(shared), rule(3, 0.4)
    at_once = [(await counter.take(b"key", wanted))[:2] for _ in range(5)]
    refused = await counter.take(b"key", wanted)
    await asyncio.sleep(refused.wait_s)

    assert at_once == [(True, 2), (True, 1), (True, 0), (False, 0), (False, 0)]
    assert (await counter.take(b"key", wanted)).allowed


async def test_a_count_in_redis_is_small_and_expires(shared: SharedRedis) -> None:
    counter, wanted = RedisCounter(shared), rule(1000, 60)
    for _ in range(500):
        await counter.take(b"key", wanted)
    name = (await shared.run(lambda client: client.keys("*")))[0]

    assert await shared.run(lambda client: client.strlen(name)) < SEGMENTS * 20
    assert 59_000 < await shared.run(lambda client: client.pttl(name)) <= 60_001


@pytest.mark.parametrize("junk", [b"", b"\xff\xff", b"nonsense", b"\x92\xa1a\xa1b", b"\x93\x01\x02\x03"])
async def test_what_somebody_else_wrote_counts_as_nothing(shared: SharedRedis, junk: bytes) -> None:
    await shared.run(lambda client: client.set(b"gw:limit:key", junk))

    assert await RedisCounter(shared).take(b"key", rule(5, 60)) == (True, 4, 60.0)


async def test_a_clock_that_is_set_back_forgives_nothing_and_locks_nobody_out(shared: SharedRedis) -> None:
    counter, wanted = RedisCounter(shared), rule(2, 0.5)
    hour_ahead = (await shared.run(lambda client: client.time()))[0] * 1_000_000 + 3_600_000_000
    packed = b"\x92\xcf" + hour_ahead.to_bytes(8, "big") + b"\x02"  # two requests, counted in the time before
    await shared.run(lambda client: client.set(b"gw:limit:key", packed))
    refused = await counter.take(b"key", wanted)
    await asyncio.sleep(0.52)

    assert (refused.allowed, refused.wait_s) == (False, 0.5)
    assert (await counter.take(b"key", wanted)).allowed


async def test_a_redis_that_was_started_anew_learns_how_to_count(redis_server: RedisServer) -> None:
    redis_server.flush()
    one = SharedRedis(redis_server.url)
    counter = RedisCounter(one)
    await counter.take(b"key", rule(5, 60))
    await one.run(lambda client: client.script_flush())

    assert (await counter.take(b"key", rule(5, 60))).remaining == 3
    await one.close()
