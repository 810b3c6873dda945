"""Pages of one organization's audit trail."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioning.audit import GATEWAY, Entry, Event, append
from provisioning.audit_trail import AuditTrail, Place, Wanted, page_statement
from provisioning.database.pool import Database
from tests.support.audit import ACTIONS, BEGAN, fill, made_up

COUNT = 300
ANYTHING = Wanted()
MADE = [made_up("org_a", number) for number in range(1, COUNT + 1)]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    await fill(database_url, "org_a", COUNT)
    await fill(database_url, "org_b", 50)
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


async def walk(
    trail: AuditTrail, wanted: Wanted = ANYTHING, limit: int = 7, organization: str = "org_a"
) -> list[Entry]:
    """Follow the pages to the last."""
    met: list[Entry] = []
    place: Place | None = None
    while True:
        page = await trail.page(organization, wanted, limit, place)
        assert len(page.entries) <= limit
        met += page.entries
        if page.next is None:
            return met
        assert len(page.entries) == limit
        place = page.next


def expected(judge: Callable[[Entry], bool]) -> list[Entry]:
    return [entry for entry in reversed(MADE) if judge(entry)]


async def test_a_walk_meets_every_event_once_newest_first(database: Database) -> None:
    assert await walk(AuditTrail(database)) == expected(lambda entry: True)


async def test_another_organization_is_never_met(database: Database) -> None:
    trail = AuditTrail(database)

    assert {entry.chain for entry in await walk(trail, organization="org_b")} == {"org_b"}
    assert await walk(trail, Wanted(target="usr_3"), organization="org_c") == []


@pytest.mark.parametrize(
    ("wanted", "judge"),
    [
        (Wanted(action="user.login"), lambda entry: entry.action == "user.login"),
        (Wanted(action="user"), lambda entry: False),
        (Wanted(action="user.*"), lambda entry: entry.action.startswith("user.")),
        (Wanted(action="api.*"), lambda entry: False),  # `api_token.` is another word
        (Wanted(actor_id="usr_5"), lambda entry: entry.actor_id == "usr_5"),
        (Wanted(actor_id="USR_5"), lambda entry: False),
        (Wanted(target="atk_17"), lambda entry: "atk_17" in entry.targets),
        (Wanted(after=MADE[100].occurred_at), lambda entry: entry.occurred_at >= MADE[100].occurred_at),
        (Wanted(before=MADE[100].occurred_at), lambda entry: entry.occurred_at < MADE[100].occurred_at),
        (
            Wanted("user.*", "usr_5", "usr_5", MADE[5].occurred_at, MADE[290].occurred_at),
            lambda entry: (
                entry.action.startswith("user.") and entry.actor_id == "usr_5" and entry not in (MADE[4], MADE[295])
            ),
        ),
    ],
)
async def test_filters_keep_what_fits(database: Database, wanted: Wanted, judge: Callable[[Entry], bool]) -> None:
    assert await walk(AuditTrail(database), wanted) == expected(judge)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_any_filters_give_what_a_plain_look_gives(database: Database, data: st.DataObject) -> None:
    moment = st.none() | st.integers(0, COUNT + 1).map(lambda number: BEGAN + timedelta(seconds=number))
    wanted = Wanted(
        action=data.draw(st.none() | st.sampled_from([*ACTIONS, "user.*", "api_token.*", "admin.*", "key_ring.*"])),
        actor_id=data.draw(st.none() | st.integers(0, 99).map(lambda number: f"usr_{number}")),
        target=data.draw(st.none() | st.integers(0, 99).map(lambda number: f"usr_{number}")),
        after=data.draw(moment),
        before=data.draw(moment),
    )

    def fits(entry: Entry) -> bool:
        action = wanted.action
        exact = action is None or entry.action == action
        return (
            (exact or (action is not None and action[-2:] == ".*" and entry.action.startswith(action[:-1])))
            and wanted.actor_id in (None, entry.actor_id)
            and (wanted.target is None or wanted.target in entry.targets)
            and (wanted.after is None or entry.occurred_at >= wanted.after)
            and (wanted.before is None or entry.occurred_at < wanted.before)
        )

    assert await walk(AuditTrail(database), wanted, data.draw(st.integers(1, 60))) == expected(fits)


async def test_events_of_one_moment_are_told_apart_by_their_place(database: Database) -> None:
    moment = BEGAN + timedelta(days=1)
    async with database.transaction() as connection:
        await append(connection, *(Event(f"at.once_{n}", "org_a", GATEWAY, occurred_at=moment) for n in range(20)))

    met = await walk(AuditTrail(database), Wanted(action="at.*"), limit=3)

    assert [entry.action for entry in met] == [f"at.once_{n}" for n in reversed(range(20))]


async def test_a_walk_meets_what_was_there_once_while_others_are_added(database: Database) -> None:
    trail, done = AuditTrail(database), asyncio.Event()
    early = BEGAN - timedelta(days=1)

    async def add() -> None:
        number = 0
        while not done.is_set():
            number += 1
            moment = early if number % 2 else None  # also behind where the walk is
            async with database.transaction() as connection:
                await append(connection, Event("added", "org_a", GATEWAY, occurred_at=moment))

    adding = asyncio.create_task(add())
    walks = [await walk(trail, limit=limit) for limit in (1, 5, 50)]
    done.set()
    await adding

    for met in walks:
        ids = [entry.id for entry in met]
        assert len(ids) == len(set(ids))
        assert [entry for entry in met if entry.action != "added"] == expected(lambda entry: True)
    assert any(entry.action == "added" for entry in walks[-1])


# What a page costs: rows looked at, in a chain that is long beside a page.

LONG = 30_000


@pytest.fixture
async def long(database_url: str) -> AsyncIterator[Database]:
    await fill(database_url, "org_long", LONG)
    await fill(database_url, "org_other", LONG)
    async with Database(database_url, statement_timeout=60) as opened:
        async with opened.connection() as connection:
            await connection.execute("VACUUM ANALYZE audit_events")
        yield opened


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes(child))]


def touched(plan: dict[str, Any]) -> int:
    """Rows that were read or thrown away."""
    return sum(
        int(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0))
        * node["Actual Loops"]
        for node in nodes(plan)
        if node["Node Type"].endswith("Scan")
    )


MIDDLE = made_up("", LONG // 2).occurred_at


@pytest.mark.parametrize(
    ("wanted", "at_most"),
    [
        (Wanted(), 51),
        (Wanted(action="user.login"), 51),
        (Wanted(action="key_ring.rotated"), 51),  # one in a thousand
        (Wanted(action="nothing.ever"), 51),
        (Wanted(action="user.*"), 51 * 4),  # two in five: the time is walked
        (Wanted(action="key_ring.*"), LONG // 500),
        (Wanted(action="nothing.*"), 51),
        (Wanted(actor_id="usr_5"), 51),
        (Wanted(actor_id="usr_nobody"), 51),
        (Wanted(target="atk_17"), 4 * LONG // 1009 + 8),
        (Wanted(target="atk_nothing"), 51),
        (Wanted(before=MIDDLE), 51),
        (Wanted(after=MIDDLE, before=MIDDLE + timedelta(seconds=5)), 51),
        (Wanted(actor_id="usr_5", after=MIDDLE, before=MIDDLE + timedelta(hours=1)), 51),
        (Wanted(action="user.login", before=MIDDLE), 51),
    ],
)
async def test_a_page_looks_at_few_rows_of_a_long_chain(long: Database, wanted: Wanted, at_most: int) -> None:
    statement, arguments = page_statement("org_long", wanted, 50, None)
    async with long.connection() as connection:
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *arguments)
    plan = json.loads(text)[0]["Plan"]

    assert touched(plan) <= at_most, json.dumps(plan, indent=1)


async def test_the_last_page_of_a_walk_costs_what_the_first_does(long: Database) -> None:
    place = Place(made_up("", 60).occurred_at, 60)
    statement, arguments = page_statement("org_long", Wanted(), 50, place)
    async with long.connection() as connection:
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *arguments)

    assert touched(json.loads(text)[0]["Plan"]) <= 51


def test_the_statement_holds_no_value() -> None:
    moment = datetime.fromisoformat("2026-01-01T00:00:00Z")
    wanted = Wanted("user'.*", "actor'", "target'", moment, moment)
    statement, arguments = page_statement("org'", wanted, 50, Place(moment, 1))

    assert "'" not in statement
    assert {"org'", "actor'", "target'"} <= {str(argument) for argument in arguments}
