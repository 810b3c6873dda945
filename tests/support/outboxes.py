"""Outboxes for tests: rows written and read, and workers that run inside a test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson

from provisioning.database.pool import Database
from provisioning.outbox.effects import Effect
from provisioning.outbox.queue import Queue, enqueue
from provisioning.outbox.receiver import Receiver
from provisioning.outbox.worker import Outbox, Rules

PATIENT_S = 30.0
QUICK = Rules(poll_every_s=0.1, look_every_s=0.05, prune_every_s=3600.0)


async def write(database: Database, *effects: Effect) -> None:
    """Write effects down in a transaction of their own."""
    async with database.transaction() as connection:
        await enqueue(connection, *effects)


async def rows(database: Database) -> list[dict[str, Any]]:
    """Read the whole table, in the order in which it was written."""
    async with database.connection() as connection:
        found = await connection.fetch("SELECT *, next_attempt_at - now() AS wait FROM outbox ORDER BY id")
    return [dict(row) | {"payload": orjson.loads(row["payload"])} for row in found]


async def states(database: Database) -> list[str]:
    """Read the state of every row."""
    return [row["state"] for row in await rows(database)]


async def until_delivered(database: Database, number: int) -> None:
    """Wait until so many rows are delivered, and nothing else is there."""
    async with asyncio.timeout(PATIENT_S):
        while await states(database) != ["delivered"] * number:  # noqa: ASYNC110 - a row wakes nobody
            await asyncio.sleep(0.02)


async def until_nothing_waits(database: Database, least: int) -> None:
    """Wait until so many rows are delivered, or more, and nothing else is there."""
    async with asyncio.timeout(PATIENT_S):
        while len(told := await states(database)) < least or set(told) != {"delivered"}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def until(there: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENT_S):
        while not there():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def delivering(
    database: Database, *receivers: Receiver, rules: Rules = QUICK, listen: bool = True
) -> AsyncIterator[Outbox]:
    """Run a worker inside the context."""
    outbox = Outbox(Queue(database), receivers, database._url if listen else None, rules)
    outbox.start()
    try:
        yield outbox
    finally:
        await outbox.close(5.0)


def slack_effect(number: int = 0, **facts: object) -> Effect:
    """A message about one new user."""
    payload = {"userId": f"usr_{number}", "name": "Alice", "organizationName": "Acme", "organizationId": "org_1"}
    return Effect("slack", "user_created", f"user_created:usr_{number}", payload | facts)


def posthog_effect(number: int, event: str = "user_created", user: str = "usr_alice") -> Effect:
    """An event about somebody."""
    payload = {
        "userId": user,
        "at": "2026-11-23T00:00:00.000Z",
        "organizationId": "org_1",
        "event": event,
        "properties": {},
    }
    return Effect("posthog", event, f"{event}:{number}", payload, stream=user)
