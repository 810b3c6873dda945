"""What replicas remember together: what counts of it, for how long, and what is nothing but a miss."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.shared_state.client import SharedRedis
from gateway.shared_state.facts import API_TOKENS, STANDINGS, Reading
from gateway.shared_state.library import cache_on
from gateway.shared_state.tier import MOST_BYTES, SKEW_S, Recalled, SharedTier
from gateway.shared_state.values import SealedValues
from gateway.shared_state.writer import MOST_WAITING, Write, Writer
from provisioning.records import Organization, Role, Standing, User
from tests.support.redis_server import RedisServer

NOW = 1_800_000_000.0
FRESH_S, KEPT_S = 30.0, 600.0
BORN = datetime(2026, 1, 1, tzinfo=UTC)
ALICE = Standing(
    User("usr_alice", "user_alice", Role.USER, BORN, BORN, "alice@example.com"),
    Organization("org_acme", "org_clerk", "Acme", BORN, BORN),
    "member",
)


@dataclass
class Heard:
    """Whoever hears of changes, told by the test."""

    version: int = 7
    whole: bool = True
    changed: dict[str, int] = field(default_factory=dict)

    def changed_since(self, version: int, *ids: str) -> bool:
        return any(self.changed.get(one, -1) > version for one in ids)


@dataclass
class Replica:
    tier: SharedTier
    heard: Heard
    ahead_s: float = 0.0

    async def keep(self, standing: Standing = ALICE, version: int = 7, about: str = "user_alice") -> None:
        reading = Reading(standing, version, self.tier.now())
        self.tier.keep(STANDINGS, about, None, reading=reading)
        await self.tier.settled()

    async def find(self, about: str = "user_alice") -> Recalled[Standing] | None:
        return await self.tier.find(STANDINGS, about, None, fresh_s=FRESH_S)


class Replicas:
    """Replicas on one Redis, with one clock."""

    def __init__(self, url: str) -> None:
        self.redis = SharedRedis(url)
        self.elapsed_s = 0.0
        self._made: list[SharedTier] = []

    def one(self, key: str = "k" * 32, settings: bytes = b"settings", ahead_s: float = 0.0) -> Replica:
        heard = Heard()
        tier = SharedTier(
            self.redis,
            cache_on(self.redis.client),
            SealedValues(key, settings),
            heard,
            kept_s=KEPT_S,
            clock=lambda: NOW + self.elapsed_s + ahead_s,
        )
        self._made.append(tier)
        return Replica(tier, heard)

    async def close(self) -> None:
        for tier in self._made:
            await tier.close()
        await self.redis.close()


@pytest.fixture
async def replicas(redis_url: str) -> AsyncIterator[Replicas]:
    made = Replicas(redis_url)
    yield made
    await made.close()


async def ask(replicas: Replicas, *command: str | bytes) -> Any:
    return await replicas.redis.run(lambda client: client.execute_command(*command))


async def names(replicas: Replicas) -> list[bytes]:
    found: list[bytes] = await ask(replicas, "KEYS", "*")
    return found


async def test_what_one_replica_read_another_finds(replicas: Replicas) -> None:
    one, other = replicas.one(), replicas.one()
    await one.keep()
    replicas.elapsed_s = 20.0

    assert await other.find() == Recalled(ALICE, 20.0, fresh=True)
    assert await other.find("user_bob") is None
    assert other.tier.results == {("standing", "hit"): 1, ("standing", "miss"): 1}


async def test_v03_it_is_fresh_for_as_long_as_a_reading_of_our_own(replicas: Replicas) -> None:
    one, other = replicas.one(), replicas.one()
    await one.keep()
    ages = {}
    for replicas.elapsed_s in (FRESH_S - 1, FRESH_S + 1, KEPT_S - 1, KEPT_S + 1):
        found = await other.find()
        ages[replicas.elapsed_s] = found.fresh if found is not None else None

    assert ages == {FRESH_S - 1: True, FRESH_S + 1: False, KEPT_S - 1: False, KEPT_S + 1: None}


async def test_v03_redis_keeps_nothing_past_its_end(replicas: Replicas) -> None:
    one = replicas.one()
    reading = Reading(ALICE, 7, NOW)
    one.tier.keep(STANDINGS, "ends", reading=reading, until=NOW + 5)
    one.tier.keep(STANDINGS, "stays", reading=reading)
    one.tier.keep(STANDINGS, "ended", reading=reading, until=NOW - 1)
    await one.tier.settled()
    lives = [await ask(replicas, "PTTL", name) for name in await names(replicas)]

    assert [round(life / 1000) for life in sorted(lives)] == [5, 600]


async def test_c02_nothing_counts_that_is_older_than_a_change_that_was_heard_of(replicas: Replicas) -> None:
    one, other = replicas.one(), replicas.one()
    await one.keep(version=7)
    outcomes = []
    for changed in ({"usr_alice": 7}, {"usr_bob": 9}, {"usr_alice": 8}, {"org_acme": 8}):
        other.heard.changed = changed
        outcomes.append(await other.find() is not None)
    await one.keep(version=8)

    assert outcomes == [True, True, False, False]
    assert await other.find() is not None


async def test_while_changes_may_be_missed_nothing_is_fresh(replicas: Replicas) -> None:
    one, other = replicas.one(), replicas.one()
    await one.keep()
    other.heard.whole = False

    assert await other.find() == Recalled(ALICE, 0.0, fresh=False)


async def test_what_a_process_is_told_to_forget_it_does_not_believe_from_others(replicas: Replicas) -> None:
    one, other = replicas.one(), replicas.one()
    await one.keep()
    replicas.elapsed_s = 10.0
    other.tier.forget("usr_alice")
    other.tier.forget("org_elsewhere")
    forgotten = await other.find()
    replicas.elapsed_s += SKEW_S + 0.1
    await one.keep()

    assert forgotten is None
    assert await other.find() is not None


async def test_a_reading_from_the_future_does_not_count(replicas: Replicas) -> None:
    other = replicas.one()
    for ahead_s, counts in ((SKEW_S / 2, True), (SKEW_S * 2, False)):
        await replicas.one(ahead_s=ahead_s).keep()
        found = await other.find()
        assert (found is not None) is counts
        assert found is None or found.age_s == 0.0


async def test_another_master_key_or_other_settings_find_nothing(replicas: Replicas) -> None:
    await replicas.one().keep()

    assert await replicas.one(key="o" * 32).find() is None
    assert await replicas.one(settings=b"others").find() is None


async def test_c05_whatever_somebody_else_wrote_is_a_miss(replicas: Replicas) -> None:
    one = replicas.one()
    await one.keep()
    (alices,) = await names(replicas)
    sealed = await ask(replicas, "GET", alices)
    await one.keep(about="user_bob")
    (bobs,) = set(await names(replicas)) - {alices}
    written: dict[str, bytes] = {
        "junk": b"\xff\x00junk",
        "empty": b"",
        "truncated": sealed[:-3],
        "without a seal": sealed[32:],
        "changed": sealed.replace(b'"role":"USER"', b'"role":"ADMIN"'),
    }
    for name, value in written.items():
        await ask(replicas, "SET", bobs, value)
        assert await one.find("user_bob") is None, name
    await ask(replicas, "SET", bobs, sealed)  # somebody's, under another's name
    swapped = await one.find("user_bob")
    await ask(replicas, "DEL", bobs)
    await ask(replicas, "RPUSH", bobs, b"a list")
    of_another_type = await one.find("user_bob")

    assert (swapped, of_another_type) == (None, None)
    assert one.tier.results["standing", "forged"] == len(written) + 1
    assert await one.find() is not None


async def test_c05_names_and_channels_hold_nothing_that_can_be_read(replicas: Replicas) -> None:
    await replicas.one().keep(about="user_alice")

    (name,) = await names(replicas)
    assert name.startswith(b"gw:")
    assert len(name) == len("gw:") + 64
    int(name.removeprefix(b"gw:"), 16)


async def test_one_look_is_one_command(replicas: Replicas, redis_server: RedisServer) -> None:
    one = replicas.one()
    await one.keep()
    redis_server.ask(b"CONFIG RESETSTAT")
    await one.find()
    counted = redis_server.ask(b"INFO commandstats")

    assert b"cmdstat_get:calls=1," in counted
    assert {line.partition(b":")[0] for line in counted.split(b"\r\n") if line.startswith(b"cmdstat")} == {
        b"cmdstat_get",
        b"cmdstat_config",
    }


async def test_without_redis_nothing_is_found_nothing_waits_and_nothing_fails(
    replicas: Replicas, redis_server: RedisServer
) -> None:
    one = replicas.one()
    redis_server.stop()
    try:
        found = await one.find()
        await one.keep()
    finally:
        redis_server.start()

    assert found is None
    assert one.tier.results["standing", "unavailable"] == 1
    assert one.tier.dropped == 1


async def test_a_value_too_large_stays_here(replicas: Replicas) -> None:
    person = User("usr_1", "user_1", Role.USER, BORN, BORN, settings={"much": "x" * MOST_BYTES})
    one = replicas.one()
    await one.keep(Standing(person, ALICE.organization, "member"))

    assert await names(replicas) == []


async def test_of_what_waits_under_one_name_the_last_is_written_and_the_rest_is_bounded() -> None:
    written: dict[str, bytes] = {}
    way = asyncio.Event()

    async def write(name: str, write: Write) -> None:
        await way.wait()
        written[name] = write.value

    writer = Writer(write)
    for number in range(MOST_WAITING + 5):
        writer.put(str(number), Write(b"first", 1.0))
    writer.put("9999", Write(b"last", 1.0))
    way.set()
    await writer.settled()

    assert (len(written), writer.dropped) == (MOST_WAITING, 5)
    assert written["9999"] == b"last"


async def test_api_tokens_and_people_are_kept_apart(replicas: Replicas) -> None:
    one = replicas.one()
    await one.keep()

    assert await one.tier.find(API_TOKENS, "user_alice", None, fresh_s=FRESH_S) is None
    assert one.tier.results["api_token", "miss"] == 1
