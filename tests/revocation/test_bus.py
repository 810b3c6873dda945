"""The bus by itself, on real servers: order, gaps, forgetting, forgery, clusters and failovers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import pytest

from gateway.live.registry import Registry
from gateway.revocation.bus import Bus
from gateway.revocation.changes import AnythingChanged, Change, Message, PersonChanged
from gateway.revocation.endings import Endings
from gateway.revocation.envelope import Envelope
from gateway.shared_state.client import SharedRedis
from tests.support.redis_fleets import redis_cluster, watched_redis
from tests.support.redis_server import RedisServer, redis_that_is_a_replica, redis_that_is_full

KEY = "a-master-key-of-these-tests-alone"  # not a secret


class Noted(Endings):
    """Notes what it would end.

    Attributes:
        changes: In order.
        in_touch: Whether it heard that it is, last.
    """

    def __init__(self) -> None:
        super().__init__(Registry())
        self.changes: list[Change] = []
        self.in_touch = False

    def apply(self, change: Change) -> None:
        self.changes.append(change)

    def lose_touch(self, listener: object) -> None:
        self.in_touch = False

    def regain_touch(self, listener: object, *, missed: bool) -> None:
        self.in_touch = True

    @property
    def people(self) -> list[str]:
        return [change.user_id for change in self.changes if isinstance(change, PersonChanged)]


@asynccontextmanager
async def on_the_bus(url: str) -> AsyncIterator[tuple[Bus, Noted]]:
    shared, noted = SharedRedis(url), Noted()
    bus = Bus(shared, Envelope(KEY), noted)
    await bus.start()
    noted.changes.clear()  # nothing was believed before, and that is ended once
    try:
        yield bus, noted
    finally:
        await bus.close()
        await shared.close()


@asynccontextmanager
async def silent_bus(url: str) -> AsyncIterator[tuple[Bus, Noted]]:
    """One that does nothing by itself."""
    shared, noted = SharedRedis(url), Noted()
    try:
        yield Bus(shared, Envelope(KEY), noted), noted
    finally:
        await shared.close()


async def told(bus: Bus, number: int, name: str) -> None:
    """Have another one tell that somebody changed."""
    sealed = bus._envelope.seal(Message("another", number, 0.0, (PersonChanged(name),)))
    await bus._channel.tell(sealed, logged=True)


async def publish(bus: Bus, data: bytes) -> None:
    """Send what anybody can who may write to Redis."""
    await bus._channel._shared.run(lambda client: client.publish(bus._channel.name, data))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def test_each_hears_all_others_in_order_and_applies_its_own_once(redis_url: str) -> None:
    async with on_the_bus(redis_url) as (one, heard_by_one), on_the_bus(redis_url) as (other, heard_by_other):
        for number in range(250):
            one.tell(PersonChanged(f"usr_{number}"))
        other.tell(PersonChanged("usr_last"))
        await until(lambda: len(heard_by_one.changes) == 251 and len(heard_by_other.changes) == 251)
        await until(lambda: one.recent.version == other.recent.version)

        assert heard_by_one.people[:250] == [f"usr_{number}" for number in range(250)]
        assert [name for name in heard_by_other.people if name != "usr_last"] == heard_by_one.people[:250]
        assert one.recent.version <= 10  # told many at once
        assert sum(other.lag.counts) >= 3
        assert sum(one.lag.counts) == 1


async def test_a_bus_over_a_cluster_hears_as_well(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as nodes:
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        async with on_the_bus(url) as (one, _), on_the_bus(url) as (other, heard):
            await until(lambda: one.whole and other.whole)
            one.tell(PersonChanged("usr_a"))
            await until(lambda: heard.people == ["usr_a"])


async def test_a_failover_loses_touch_and_finds_it_again(tmp_path: Path) -> None:
    with watched_redis(tmp_path) as watched:
        async with on_the_bus(watched.url) as (one, _), on_the_bus(watched.url) as (other, heard):
            await until(lambda: one.whole and other.whole)
            watched.servers[0].stop()
            await until(lambda: not other.whole)
            out_of_touch = heard.in_touch
            one.tell(PersonChanged("usr_a"))
            await until(lambda: "usr_a" in heard.people)

            assert not out_of_touch
            assert heard.in_touch


@pytest.mark.parametrize("refuses", [redis_that_is_a_replica, redis_that_is_full])
async def test_where_redis_takes_no_writes_nobody_is_in_touch_though_it_passes_messages_on(
    redis_server: RedisServer, redis_url: str, refuses: Callable[[RedisServer], AbstractContextManager[None]]
) -> None:
    async with on_the_bus(redis_url) as (one, _), on_the_bus(redis_url) as (other, heard):
        one.tell(PersonChanged("usr_a"))
        await until(lambda: heard.people == ["usr_a"])
        with refuses(redis_server):
            one.tell(PersonChanged("usr_b"))
            await until(lambda: not (one.whole or other.whole))
            untold = list(heard.people)
        await until(lambda: one.whole and other.whole and "usr_b" in heard.people)

        assert untold == ["usr_a"]


async def test_a_redis_that_forgot_everything_is_a_gap(redis_server: RedisServer, redis_url: str) -> None:
    async with on_the_bus(redis_url) as (one, _), on_the_bus(redis_url) as (other, heard):
        one.tell(PersonChanged("usr_a"))
        await until(lambda: heard.people == ["usr_a"])
        redis_server.flush()
        one.tell(PersonChanged("usr_b"))
        await until(lambda: AnythingChanged() in heard.changes)

        assert other.whole


async def test_a_short_absence_is_made_up_from_the_log_without_ending_everything(
    redis_server: RedisServer, redis_url: str
) -> None:
    async with on_the_bus(redis_url) as (one, _), on_the_bus(redis_url) as (other, heard):
        one.tell(PersonChanged("usr_a"))
        await until(lambda: heard.people == ["usr_a"])
        for number in range(5):
            redis_server.ask(b"CLIENT KILL TYPE pubsub")
            one.tell(PersonChanged(f"usr_{number}"))
        await until(lambda: len(heard.people) == 6 and other.whole)

        assert heard.people == ["usr_a", *(f"usr_{number}" for number in range(5))]
        assert AnythingChanged() not in heard.changes


async def test_more_missed_than_the_log_holds_ends_everything(redis_server: RedisServer, redis_url: str) -> None:
    async with on_the_bus(redis_url) as (one, _), on_the_bus(redis_url) as (other, heard):
        one.tell(PersonChanged("usr_a"))
        await until(lambda: heard.people == ["usr_a"] and one.recent.version == 1)
        place = Envelope(KEY).place.encode()
        redis_server.ask(b"DEL gw:{%s}:log" % place)
        redis_server.ask(b"HINCRBY gw:{%s}:version version 7" % place)
        await until(lambda: AnythingChanged() in heard.changes)

        assert other.recent.version == 8
        assert other.recent.changed_since(7, "usr_anybody")


async def test_a_counter_that_went_back_ends_everything(redis_server: RedisServer, redis_url: str) -> None:
    async with on_the_bus(redis_url) as (one, _), on_the_bus(redis_url) as (_, heard):
        for name in ("usr_a", "usr_b"):
            one.tell(PersonChanged(name))
            await until(lambda name=name: heard.people[-1:] == [name])  # type: ignore[misc]
        redis_server.ask(b"HINCRBY gw:{%s}:version version -1" % Envelope(KEY).place.encode())
        await until(lambda: AnythingChanged() in heard.changes)


@pytest.mark.parametrize("kind", ["junk", "epoch", "sealed by another key", "sent again"])
async def test_c05_nobody_who_can_write_to_redis_makes_anybody_end_anything(redis_url: str, kind: str) -> None:
    async with on_the_bus(redis_url) as (one, _), on_the_bus(redis_url) as (other, heard):
        channel = other._channel
        listening = channel.subscription()
        await listening.subscribe(channel.name)
        one.tell(PersonChanged("usr_a"))
        await until(lambda: heard.people == ["usr_a"])
        told = b""
        while b"usr_a" not in told:
            message = await listening.get_message(timeout=5)
            told = message["data"] if message is not None and message["type"] == "message" else b""
        await listening.aclose()
        epoch, version, sealed = told.split(b" ", 2)
        forged = {
            "junk": b"\x00\xff" * 50,
            "epoch": b"other %s %s" % (version, sealed),
            "sealed by another key": b"%s 2 %s" % (epoch, b"x" * 32 + sealed[32:]),
            "sent again": told,
        }[kind]
        for _ in range(3):
            await channel._shared.run(lambda client: client.publish(channel.name, forged))
        one.tell(PersonChanged("usr_b"))
        await until(lambda: "usr_b" in heard.people)

        assert heard.people == ["usr_a", "usr_b"]
        assert AnythingChanged() not in heard.changes


async def test_a_change_counts_although_a_copy_of_an_older_one_took_its_version(redis_url: str) -> None:
    async with on_the_bus(redis_url) as (one, _), on_the_bus(redis_url) as (other, heard):
        channel = other._channel
        one.tell(PersonChanged("usr_a"))
        await until(lambda: heard.people == ["usr_a"])
        missed = await channel.missed(0)
        ((version, sealed),) = missed.messages
        copy = b"%s %d %s" % (missed.epoch, version + 1, sealed)
        await channel._shared.run(lambda client: client.publish(channel.name, copy))
        await until(lambda: other.recent.version == version + 1)
        one.tell(PersonChanged("usr_b"))
        await until(lambda: "usr_b" in heard.people)

        assert heard.people == ["usr_a", "usr_b"]


async def test_a_change_counts_that_a_counter_gave_an_old_version(redis_server: RedisServer, redis_url: str) -> None:
    async with on_the_bus(redis_url) as (one, _), on_the_bus(redis_url) as (_, heard):
        for name in ("usr_a", "usr_b"):
            one.tell(PersonChanged(name))
            await until(lambda name=name: heard.people[-1:] == [name])  # type: ignore[misc]
        redis_server.ask(b"HINCRBY gw:{%s}:version version -2" % Envelope(KEY).place.encode())
        one.tell(PersonChanged("usr_c"))
        await until(lambda: "usr_c" in heard.people)

        assert AnythingChanged() in heard.changes


async def test_while_redis_is_away_changes_are_kept_and_told_when_it_is_back(
    redis_server: RedisServer, redis_url: str
) -> None:
    async with on_the_bus(redis_url) as (one, heard_by_one), on_the_bus(redis_url) as (other, heard):
        redis_server.stop()
        for number in range(150):
            one.tell(PersonChanged(f"usr_{number}"))
        await until(lambda: not one.whole and not other.whole)
        meanwhile = list(heard.people)
        redis_server.start()
        await until(lambda: len(heard.people) == 150)

        assert meanwhile == []
        assert heard_by_one.people == heard.people == [f"usr_{number}" for number in range(150)]


async def test_a_bus_that_starts_while_redis_is_away_starts_out_of_touch_and_finds_the_others_later(
    redis_server: RedisServer, redis_url: str
) -> None:
    redis_server.stop()
    async with on_the_bus(redis_url) as (one, noted):
        at_first = one.whole, noted.in_touch
        redis_server.start()
        await until(lambda: one.whole)

        assert at_first == (False, False)
        assert noted.in_touch


async def test_what_was_not_told_yet_at_the_end_is_told_in_order(redis_url: str) -> None:
    async with on_the_bus(redis_url) as (_, heard):
        async with on_the_bus(redis_url) as (one, _):
            for number in range(350):
                one.tell(PersonChanged(f"usr_{number}"))
        await until(lambda: len(heard.people) >= 350)

    assert heard.people == [f"usr_{number}" for number in range(350)]


async def test_nobody_who_can_write_to_redis_keeps_a_channel_alive_on_which_nothing_can_be_told(
    redis_server: RedisServer, redis_url: str
) -> None:
    async with on_the_bus(redis_url) as (one, _), on_the_bus(redis_url) as (other, heard):
        channel = other._channel
        listening = channel.subscription()
        await listening.subscribe(channel.name)
        beat = b""
        while one._untold.sender.encode() not in beat or other._untold.sender.encode() not in beat:
            message = await listening.get_message(timeout=5)
            beat += message["data"] + b"|" if message is not None and message["type"] == "message" else b""
        await listening.aclose()
        redis_server.ask(b"SET gw:{%s}:version of-another-type" % Envelope(KEY).place.encode())
        async with asyncio.timeout(30):
            while other.whole:
                for sent in (b"junk", *filter(None, beat.split(b"|"))):  # of nobody, and what was said before
                    await publish(other, sent)
                await asyncio.sleep(0.2)

        assert not heard.in_touch


async def test_a_counter_that_went_back_and_came_on_again_during_an_absence_is_a_gap(
    redis_server: RedisServer, redis_url: str
) -> None:
    place = Envelope(KEY).place
    async with silent_bus(redis_url) as (bus, noted):
        await told(bus, 1, "usr_a")
        await told(bus, 2, "usr_b")
        await bus._catch_up()
        noted.changes.clear()
        # Another one became the master, who knew of the first alone, and was told of others since.
        redis_server.ask(b"HINCRBY gw:{%s}:version version -1" % place.encode())
        redis_server.ask(b"XDEL gw:{%s}:log 2-0" % place.encode())
        redis_server.ask(b"XSETID gw:{%s}:log 1-0" % place.encode())
        await told(bus, 3, "usr_c")
        await told(bus, 4, "usr_d")
        await bus._catch_up()

        assert noted.changes == [AnythingChanged(), PersonChanged("usr_d")]
        assert bus.recent.version == 3


async def test_a_counter_that_went_back_is_a_gap_before_anything_is_told(
    redis_server: RedisServer, redis_url: str
) -> None:
    async with silent_bus(redis_url) as (bus, noted):
        await told(bus, 1, "usr_a")
        await told(bus, 2, "usr_b")
        await bus._catch_up()
        noted.changes.clear()
        redis_server.ask(b"HINCRBY gw:{%s}:version version -1" % Envelope(KEY).place.encode())
        await bus._catch_up()

        assert noted.changes == [AnythingChanged()]
        assert bus.recent.version == 1
