"""Ending what runs in the background."""

import asyncio

import pytest

from provisioning.background import end_tasks


async def test_who_ends_tasks_waits_until_each_has_put_its_things_away() -> None:
    put_away: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            put_away.append(name)
            raise

    tasks = [asyncio.create_task(work(name)) for name in ("one", "two")]
    await asyncio.sleep(0)
    await end_tasks(tasks[0], None, tasks[1])

    assert sorted(put_away) == ["one", "two"]


async def test_what_a_task_failed_with_is_told_to_who_ends_it() -> None:
    async def fail() -> None:
        raise LookupError

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)

    with pytest.raises(LookupError):
        await end_tasks(task)


async def test_a_task_that_lost_its_cancellation_ends_as_well() -> None:
    """As Python 3.11 loses one that comes in the moment of an answer."""
    answers: list[asyncio.Future[None]] = []

    async def work() -> None:
        while True:
            answers.append(asyncio.get_running_loop().create_future())
            await asyncio.wait_for(answers[-1], 60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    answers[-1].set_result(None)
    async with asyncio.timeout(30):
        await end_tasks(task)

    assert task.cancelled()


async def test_who_ends_tasks_quietly_does_not_hear_how_they_failed_and_may_give_up_themselves() -> None:
    async def fail() -> None:
        raise LookupError

    async def stay() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if over.is_set():
                    raise

    over = asyncio.Event()
    failed, staying = asyncio.create_task(fail()), asyncio.create_task(stay())
    await asyncio.sleep(0)
    await end_tasks(failed, quietly=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await end_tasks(staying)
    over.set()
    await end_tasks(staying)
