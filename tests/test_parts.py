"""Parts are carried over, shared, and closed after their last holder."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from gateway.parts import Lease, Parts


class Made:
    """Remembers what was made and closed."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.closed: list[str] = []

    def make(self, name: str) -> Callable[[], Awaitable[str]]:
        async def make() -> str:
            self.made.append(name)
            return name

        return make

    async def close(self, name: str) -> None:
        self.closed.append(name)

    async def parts(self, before: Parts | None, **keys: object) -> Parts:
        async with Parts.after(before) as parts:
            for name, key in keys.items():
                await parts.hold(name, key, self.make(f"{name} {key}"), self.close)
        return parts


async def test_a_part_made_of_the_same_is_carried_over_and_another_is_made_anew() -> None:
    made = Made()
    first = await made.parts(None, keys=1, pool=1)
    second = await made.parts(first, keys=1, pool=2)

    assert made.made == ["keys 1", "pool 1", "pool 2"]
    await first.release()
    assert made.closed == ["pool 1"]
    await second.release()
    assert made.closed == ["pool 1", "pool 2", "keys 1"]


async def test_a_part_lives_until_its_last_holder_lets_go_in_any_order() -> None:
    made = Made()
    first = await made.parts(None, keys=1)
    second = await made.parts(first, keys=1)
    third = await made.parts(second, keys=1)

    for parts in (second, first):
        await parts.release()
        assert made.closed == []
    await third.release()
    assert made.closed == ["keys 1"]


async def test_what_was_taken_before_an_error_is_given_back() -> None:
    made = Made()
    first = await made.parts(None, keys=1)
    with pytest.raises(OSError):
        async with Parts.after(first) as parts:
            await parts.hold("keys", 1, made.make("never"), made.close)
            await parts.hold("pool", 1, made.make("pool 1"), made.close)
            raise OSError

    assert made.closed == ["pool 1"]
    await first.release()
    assert made.closed == ["pool 1", "keys 1"]


async def test_a_part_that_cannot_be_closed_does_not_keep_the_others_open() -> None:
    async def fail(_: str) -> None:
        raise OSError

    made = Made()
    async with Parts.after(None) as parts:
        await parts.hold("keys", 1, made.make("keys 1"), made.close)
        await parts.hold("pool", 1, made.make("pool 1"), fail)
    with capture_logs() as logs:
        await parts.release()

    assert made.closed == ["keys 1"]
    assert [line["part"] for line in logs] == ["pool"]


async def test_a_set_does_not_keep_the_one_before_the_last() -> None:
    made = Made()
    first = await made.parts(None, keys=1)
    second = await made.parts(first, pool=1)
    third = await made.parts(second, keys=1)

    assert made.made == ["keys 1", "pool 1", "keys 1"]
    for parts in (first, second, third):
        await parts.release()


async def test_a_lease_is_over_when_the_last_one_left() -> None:
    lease = Lease()
    with lease:
        with lease:
            over = asyncio.create_task(lease.over())
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not over.done()
    await over


async def test_a_lease_nobody_holds_is_over_at_once() -> None:
    await asyncio.wait_for(Lease().over(), 1)
