import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest

from provisioning.audit import ENTRY_COLUMNS, FIRST_HASH, GATEWAY, Event, Origin, append, entry_of
from provisioning.database.pool import Database
from tests.support.tokens import actions, count, events, execute

ORIGIN = Origin("user", "usr_1", "user_support", "203.0.113.9", "agent/1", "request-1")
EVENT = Event("thing.done", "org_a", ORIGIN, ("thing_1", "thing_2"), {"b": [1, "é"], "a": None})


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


async def put(database: Database, *added: Event) -> None:
    async with database.transaction() as connection:
        await append(connection, *added)


async def test_an_event_is_kept_with_everything_it_says(database: Database) -> None:
    before = datetime.now(UTC)
    await put(database, EVENT)
    (kept,) = await events(database, "org_a")

    assert kept["id"].startswith("evt_")
    assert before <= kept["occurred_at"] <= datetime.now(UTC)
    assert (kept["action"], kept["actor_kind"], kept["actor_id"]) == ("thing.done", "user", "usr_1")
    assert (kept["impersonator_id"], kept["address"]) == ("user_support", "203.0.113.9")
    assert (kept["user_agent"], kept["request_id"]) == ("agent/1", "request-1")
    assert (kept["targets"], kept["metadata"]) == (["thing_1", "thing_2"], {"b": [1, "é"], "a": None})


async def test_what_belongs_to_no_organization_joins_the_chain_of_the_gateway(database: Database) -> None:
    await put(database, Event("gateway.changed", None, GATEWAY))

    assert await actions(database, "gateway") == ["gateway.changed"]


async def test_every_organization_has_a_chain_of_its_own(database: Database) -> None:
    await put(
        database, Event("one", "org_b", GATEWAY), Event("two", "org_a", GATEWAY), Event("three", "org_b", GATEWAY)
    )

    assert await actions(database, "org_a") == ["two"]
    assert await actions(database, "org_b") == ["one", "three"]


async def test_an_event_goes_with_its_transaction(database: Database) -> None:
    await put(database, EVENT)
    with pytest.raises(RuntimeError):
        async with database.transaction() as connection:
            await append(connection, Event("never", "org_a", GATEWAY))
            raise RuntimeError
    await put(database, Event("later", "org_a", GATEWAY))

    assert await actions(database, "org_a") == ["thing.done", "later"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET action = 'other'",
        "UPDATE audit_events SET action = 'other' WHERE false",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "SET session_replication_role = replica; DELETE FROM audit_events",
        "INSERT INTO audit_events SELECT * FROM audit_events ON CONFLICT (id) DO UPDATE SET action = 'other'",
        "DELETE FROM audit_chains",
        "TRUNCATE audit_chains",
    ],
)
async def test_nothing_that_is_kept_can_be_changed_or_taken_away(database: Database, statement: str) -> None:
    await put(database, EVENT)

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await execute(database, statement)

    assert await actions(database, "org_a") == ["thing.done"]


async def test_a_hundred_at_once_stand_in_one_line(database: Database) -> None:
    await asyncio.gather(*(put(database, Event(f"a.{n}", "org_a", GATEWAY)) for n in range(100)))

    assert sorted(await actions(database, "org_a")) == sorted(f"a.{n}" for n in range(100))


async def test_several_chains_in_opposite_order_do_not_lock_each_other_out(database: Database) -> None:
    forward = [Event("a", "org_a", GATEWAY), Event("b", "org_b", GATEWAY), Event("c", None, GATEWAY)]
    await asyncio.gather(*(put(database, *(forward if n % 2 else reversed(forward))) for n in range(60)))

    assert len(await events(database, "org_a")) == len(await events(database, "org_b")) == 60


async def test_a_change_behind_the_triggers_is_noticed(database: Database) -> None:
    for number in range(3):
        await put(database, Event(f"step.{number}", "org_a", ORIGIN))
    async with database.connection() as connection:
        await connection.execute("ALTER TABLE audit_events DISABLE TRIGGER ALL")
        await connection.execute("UPDATE audit_events SET actor_id = 'usr_2' WHERE sequence = 2")
        rows = await connection.fetch(f"SELECT {ENTRY_COLUMNS}, hash FROM audit_events ORDER BY sequence")
    whole = []
    previous = FIRST_HASH
    for row in rows:
        whole.append(entry_of(row).hash_after(previous) == row["hash"])
        previous = row["hash"]

    assert whole == [True, False, True]


async def test_text_that_postgresql_cannot_keep_does_not_lose_the_event(database: Database) -> None:
    agent = f"a\0b\ud800c\x1b[31m{'x' * 1000}"
    await put(database, Event("thing.done", "org_a", Origin("user", "usr_1", user_agent=agent)))
    (kept,) = await events(database, "org_a")

    assert kept["user_agent"].startswith("a b c [31mxx")
    assert len(kept["user_agent"]) == 500


async def test_the_body_of_an_entry_tells_every_field_apart(database: Database) -> None:
    words = {name: secrets.token_hex(4) for name in ("actor", "impersonator", "address", "agent", "request")}
    origin = Origin("user", words["actor"], words["impersonator"], words["address"], words["agent"], words["request"])
    await put(database, Event("thing.done", "org_a", origin, ("t1", "t2"), {"k": "v"}))
    async with database.connection() as connection:
        row = await connection.fetchrow(f"SELECT {ENTRY_COLUMNS} FROM audit_events")
    assert row is not None
    body = entry_of(row).body().decode()

    assert [body.count(word) for word in words.values()] == [1] * 5
    assert '["t1","t2"]' in body
    assert await count(database, "audit_events") == 1
