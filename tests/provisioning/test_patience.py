"""Whose lateness counts: that of whoever is asked, not that of a loop that was busy."""

import asyncio
import socket
import time

import pytest

from provisioning.database.pool import Database
from provisioning.patience import SLICES, patience


async def test_who_never_answers_is_given_up() -> None:
    with pytest.raises(TimeoutError):
        async with patience(0.01):
            await asyncio.Event().wait()


async def test_an_answer_that_came_while_the_loop_was_busy_counts() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    with theirs:
        async with patience(0.05):
            reading = asyncio.create_task(reader.read(1))
            await asyncio.sleep(0)
            theirs.send(b"x")
            time.sleep(0.2)  # noqa: ASYNC251 - the loop is busy
            answer = await reading
    writer.close()

    assert answer == b"x"


async def test_a_loop_that_is_late_again_and_again_gives_up_in_the_end() -> None:
    late = 0
    with pytest.raises(TimeoutError):
        async with patience(0.01):
            while True:
                late += 1
                time.sleep(0.01)  # noqa: ASYNC251
                await asyncio.sleep(0)

    assert late >= SLICES


async def test_what_is_raised_inside_passes_as_it_is() -> None:
    with pytest.raises(LookupError):
        async with patience(0.01):
            raise LookupError


async def test_postgresql_is_not_away_because_this_process_was_busy(database_url: str) -> None:
    async with Database(database_url, statement_timeout=0.2) as database, database.connection() as connection:
        asking = asyncio.create_task(connection.fetchval("SELECT 1"))
        await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251
        answer = await asking

    assert answer == 1
    assert set(database.failures.values()) == {0}
