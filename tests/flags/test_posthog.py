"""PostHog's flags: evaluated here, kept whatever PostHog answers, fetched once for the fleet."""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from config.model import DeclaredFlag
from gateway.flags.copies import Copies, NoCopies, RedisCopies
from gateway.flags.posthog import PosthogFlags, Source
from gateway.flags.provider import Facts
from gateway.flags.telling import FlagTeller
from gateway.shared_state.client import SharedRedis
from tests.support.fake_posthog import PROJECT_KEY, SECRET_KEY, FakePosthog, fake_posthog

ALICE = Facts("usr_1", "ADMIN", "org_1", "admin", "alice@ours.test")
MASTER_KEY = "k" * 16 + "0123456789abcdef"


def flag(key: str, percentage: int = 100, **filters: Any) -> dict[str, Any]:
    groups = [{"properties": [], "rollout_percentage": percentage}]
    return {"id": 1, "key": key, "active": True, "filters": {"groups": groups, **filters}}


@asynccontextmanager
async def flags_of(fake: FakePosthog, copies: Copies | None = None, **how: Any) -> AsyncIterator[PosthogFlags]:
    source = Source(fake.url, PROJECT_KEY, how.pop("secret_key", SECRET_KEY))
    flags = PosthogFlags(source, ["on", "options"], ["options"], copies or NoCopies(), **{"poll_s": 3600.0, **how})
    await flags.start()
    try:
        yield flags
    finally:
        await flags.close()


async def test_a_hundred_thousand_evaluations_ask_nobody() -> None:
    async with fake_posthog() as fake:
        fake.flags = [flag("on", 50)]
        async with flags_of(fake) as flags:
            asked = fake.requests
            on = 0
            for number in range(100_000):
                on += flags.evaluate(Facts(f"usr_{number}", "USER", "org_1", "member"))["on"] is True

            assert fake.requests == asked == 1
            assert 48_000 < on < 52_000


@pytest.mark.parametrize("status", [401, 402, 500, 404, 302])
async def test_no_answer_of_posthog_takes_flags_away(status: int) -> None:
    async with fake_posthog() as fake:
        fake.flags = [flag("on")]
        async with flags_of(fake) as flags:
            fake.status = status
            await flags.look()

            assert fake.requests == 2
            assert flags.evaluate(ALICE) == {"on": True}
            assert flags.generation == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"flags": null}',
        b'{"flags": [1]}',
        b'{"flags": []}',
        b'{"flags": [{"key": "on"',
        b"<html>",
        b"[" * 100_000,
    ],
)
async def test_nonsense_takes_no_flags_away(body: bytes) -> None:
    async with fake_posthog() as fake:
        fake.flags = [flag("on")]
        async with flags_of(fake) as flags:
            fake.body = body
            await flags.look()

            assert (flags.evaluate(ALICE), flags.generation) == ({"on": True}, 1)
            assert flags.loads == {"ok": 1, "failed": 1}


async def test_an_answer_that_breaks_off_takes_no_flags_away() -> None:
    async with fake_posthog() as fake:
        fake.flags = [flag("on")]
        async with flags_of(fake) as flags:
            fake.flags, fake.cut = [flag("on", 0)], 40
            await flags.look()

            assert (flags.evaluate(ALICE), flags.generation) == ({"on": True}, 1)
            assert flags.loads == {"ok": 1, "failed": 1}


async def test_o03_without_a_source_defaults_are_told_and_marked_and_it_is_taken_up_when_it_comes() -> None:
    declared = {"on": DeclaredFlag(type="boolean", default=False)}
    async with fake_posthog() as fake:
        fake.status = 500
        async with flags_of(fake) as flags:
            teller = FlagTeller(declared, flags, 9)
            assert (teller.tell(ALICE).header, flags.loaded_at) == (b"on=?0", None)

            fake.status, fake.flags = 200, [flag("on")]
            await flags.look()

            assert teller.tell(ALICE).header == b"on"
            assert flags.loaded_at is not None


async def test_o03_a_source_that_went_away_leaves_the_last_known_and_their_age_grows() -> None:
    now = 1000.0
    async with fake_posthog() as fake:
        fake.flags = [flag("on")]
        async with flags_of(fake, clock=lambda: now, monotonic=lambda: now) as flags:
            for status in (401, 402, 500):
                now += 100
                fake.status = status
                await flags.look()

            assert flags.evaluate(ALICE) == {"on": True}
            assert flags.loaded_at == 1000.0

            fake.status = 200
            await flags.look()
            assert flags.loaded_at == now


async def test_a_hanging_posthog_takes_no_flags_away_and_holds_no_start_up() -> None:
    async with fake_posthog() as fake:
        fake.flags = [flag("on")]
        async with flags_of(fake, poll_s=0.05) as flags:
            fake.status = 0
            before = fake.requests
            while fake.requests == before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

            assert flags.evaluate(ALICE) == {"on": True}
            async with flags_of(fake, warm_up_s=0.05) as late:
                assert late.evaluate(ALICE) == {}


async def test_what_did_not_change_is_no_new_generation() -> None:
    async with fake_posthog() as fake:
        fake.flags = [flag("on")]
        async with flags_of(fake) as flags:
            await flags.look()
            assert (fake.not_modified, flags.generation) == (1, 1)

            fake.flags = [flag("on", 0)]
            await flags.look()
            assert (flags.evaluate(ALICE), flags.generation) == ({"on": False}, 2)


async def test_values_of_json_flags_are_their_payloads() -> None:
    async with fake_posthog() as fake:
        fake.flags = [flag("options", payloads={"true": json.dumps({"rows": 5})})]
        async with flags_of(fake) as flags:
            assert flags.evaluate(ALICE) == {"options": {"rows": 5}}


@pytest.fixture
async def shared(redis_url: str) -> AsyncIterator[SharedRedis]:
    made = SharedRedis(redis_url)
    yield made
    await made.close()


@pytest.fixture
def copies(shared: SharedRedis) -> RedisCopies:
    return RedisCopies(shared, MASTER_KEY, "a")


async def test_processes_that_start_together_fetch_once_and_all_begin_with_flags(copies: RedisCopies) -> None:
    async with fake_posthog() as fake, AsyncExitStack() as fleet:
        fake.flags = [flag("on")]
        started = await asyncio.gather(*(fleet.enter_async_context(flags_of(fake, copies)) for _ in range(5)))

        assert fake.requests == 1
        assert [one.evaluate(ALICE) for one in started] == [{"on": True}] * 5


async def test_one_process_of_the_fleet_fetches_for_all(redis_url: str, copies: RedisCopies) -> None:
    async with fake_posthog() as fake:
        fake.flags = [flag("on")]
        async with (
            flags_of(fake, copies) as first,
            flags_of(fake, copies) as second,
        ):
            assert fake.requests == 1
            assert first.evaluate(ALICE) == second.evaluate(ALICE) == {"on": True}


async def test_when_definitions_are_old_one_process_of_three_fetches_them(redis_url: str, copies: RedisCopies) -> None:
    now = 1000.0

    def of_fleet(fake: FakePosthog) -> AbstractAsyncContextManager[PosthogFlags]:
        return flags_of(fake, copies, clock=lambda: now)

    async with fake_posthog() as fake, Redis.from_url(redis_url) as redis:
        fake.flags = [flag("on")]
        async with of_fleet(fake) as first, of_fleet(fake) as second, of_fleet(fake) as third:
            fleet = (first, second, third)
            for _ in range(10):
                await asyncio.gather(*(one.look() for one in fleet))
            assert fake.requests == 1

            now += 3600  # of their clocks; Redis has its own
            await redis.delete(*await redis.keys("gw:flags-poller:*"))
            fake.flags = [flag("on", 0)]
            for _ in range(10):
                await asyncio.gather(*(one.look() for one in fleet))

            assert fake.requests == 2
            assert [one.evaluate(ALICE) for one in fleet] == [{"on": False}] * 3


async def test_a_process_whose_clock_is_ahead_keeps_nobody_from_news(redis_url: str, copies: RedisCopies) -> None:
    async with fake_posthog() as fake, Redis.from_url(redis_url) as redis:
        fake.flags = [flag("on")]
        async with flags_of(fake, copies, clock=lambda: 1e9):
            pass
        await redis.delete(*await redis.keys("gw:flags-poller:*"))
        fake.flags = [flag("on", 0)]
        async with flags_of(fake, copies, clock=lambda: 1e9 - 3600) as other:
            assert other.evaluate(ALICE) == {"on": False}


async def test_news_are_taken_after_the_clock_was_set_back() -> None:
    now = 1e9
    async with fake_posthog() as fake:
        fake.flags = [flag("on")]
        async with flags_of(fake, clock=lambda: now) as flags:
            now -= 3600
            fake.flags = [flag("on", 0)]
            await flags.look()

            assert flags.evaluate(ALICE) == {"on": False}


async def test_a_start_without_posthog_takes_the_last_good_copy(redis_url: str, copies: RedisCopies) -> None:
    async with fake_posthog() as fake:
        fake.flags = [flag("on")]
        async with flags_of(fake, copies):
            fake.status = 402
        async with flags_of(fake, copies, poll_s=0.01) as later:
            assert later.evaluate(ALICE) == {"on": True}


async def test_a_copy_that_somebody_else_wrote_is_not_believed(
    redis_url: str, copies: RedisCopies, shared: SharedRedis
) -> None:
    async with fake_posthog() as fake:
        fake.flags = [flag("on", 0)]
        async with flags_of(fake, copies):
            pass
        redis = Redis.from_url(redis_url)
        (key,) = await redis.keys("gw:flags:*")
        kept = await redis.get(key)
        assert isinstance(kept, bytes)
        head, _, body = kept[32:].partition(b"\n")
        other = zlib.compress(zlib.decompress(body).replace(b'"rollout_percentage": 0', b'"rollout_percentage": 9'))
        assert other != body
        for forged in (kept[:32] + head + b"\n" + other, kept[:-1], b"", kept[:32]):
            await redis.set(key, forged)
            assert await copies.load() is None
        await redis.set(key, kept)
        assert await copies.load() is not None
        assert await RedisCopies(shared, MASTER_KEY, "b").load() is None
        assert await RedisCopies(shared, MASTER_KEY[::-1], "a").load() is None
        await redis.aclose()


async def test_the_fleet_goes_on_without_redis() -> None:
    async with fake_posthog() as fake:
        fake.flags = [flag("on")]
        nobody = SharedRedis("redis://127.0.0.1:1/0")
        async with flags_of(fake, RedisCopies(nobody, MASTER_KEY, "a")) as flags:
            assert flags.evaluate(ALICE) == {"on": True}
        await nobody.close()
