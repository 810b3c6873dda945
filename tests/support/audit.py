"""Audit events for tests: made up in numbers, bent behind the triggers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg

from provisioning.audit import FIRST_HASH, Entry
from provisioning.audit_check import Link
from provisioning.database.pool import Connection, Database

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ACTIONS = ("user.login", "user.created", "api_token.created", "api_token.revoked", "admin.access_denied")


def made_up(chain: str, number: int) -> Entry:
    """One event of a chain, a second after the one before it."""
    return Entry(
        f"evt_{chain}_{number}",
        chain,
        ACTIONS[number % len(ACTIONS)] if number % 1000 else "key_ring.rotated",
        "user",
        f"usr_{number % 97}",
        "user_support" if number % 10 == 0 else None,
        (f"atk_{number % 1009}", f"usr_{number % 97}"),
        "203.0.113.9",
        "agent/1",
        f"request-{number}",
        '{"name":"é \\"quoted\\"","number":' + str(number) + "}",
        BEGAN + timedelta(seconds=number),
    )


def linked(entries: Sequence[Entry]) -> list[Link]:
    """Give events their places and hashes."""
    previous, links = FIRST_HASH, []
    for sequence, entry in enumerate(entries, 1):
        previous = entry.hash_after(previous)
        links.append(Link(entry.chain, sequence, previous, entry))
    return links


async def fill(url: str, chain: str, count: int, batch: int = 50_000) -> None:
    """Write a whole chain at once, as `append` would have one after the other."""
    connection = await asyncpg.connect(url)
    previous, rows = FIRST_HASH, []
    try:
        for sequence in range(1, count + 1):
            entry = made_up(chain, sequence)
            previous = entry.hash_after(previous)
            rows.append((*entry.columns(), sequence, previous))
            if len(rows) == batch or sequence == count:
                await connection.copy_records_to_table("audit_events", records=rows, columns=COLUMNS)
                rows = []
        await connection.execute("INSERT INTO audit_chains VALUES ($1, $2, $3)", chain, count, previous)
        await connection.execute("ANALYZE audit_events")
    finally:
        await connection.close()


COLUMNS = (
    "id",
    "chain",
    "action",
    "actor_kind",
    "actor_id",
    "impersonator_id",
    "targets",
    "address",
    "user_agent",
    "request_id",
    "metadata",
    "occurred_at",
    "sequence",
    "hash",
)


@asynccontextmanager
async def bending(database: Database) -> AsyncIterator[Connection]:
    """A connection for which the triggers and keys of the audit tables are no hindrance: what their owner could do."""
    async with database.connection() as connection:
        for table in ("audit_events", "audit_chains"):
            await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        yield connection
