"""Whatever was done to a chain behind its triggers is found."""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.commands.audit import _line
from provisioning.audit import FIRST_HASH, GATEWAY, Entry, Event, Origin, append
from provisioning.audit_check import ChainCheck, End, Finding, Kept, Link, Verdict, export, verify
from provisioning.database.pool import Database
from tests.support.audit import bending, fill, linked, made_up

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=6)
MAYBE = st.none() | TEXT
ENTRY_FIELDS = [field.name for field in fields(Entry)]
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "targets": st.lists(TEXT, max_size=3).map(tuple),
    "occurred_at": st.integers(1, 10**9).map(lambda number: made_up("org_a", 0).occurred_at - timedelta(0, 0, number)),
} | dict.fromkeys(["actor_id", "impersonator_id", "address", "user_agent", "request_id"], MAYBE)


def wrong(links: list[Link], kept: End | None) -> list[Finding]:
    check = ChainCheck("org_a")
    return [finding for link in links for finding in check.take(link)] + list(check.end(kept))


def chain(length: int) -> tuple[list[Link], End]:
    links = linked([made_up("org_a", number) for number in range(1, length + 1)])
    return links, End(length, links[-1].hash if links else FIRST_HASH)


@given(st.integers(0, 8))
def test_a_chain_that_nobody_touched_is_whole(length: int) -> None:
    links, end = chain(length)

    assert wrong(links, end) == []


@given(st.data())
def test_another_value_in_any_field_of_any_event_is_found(data: st.DataObject) -> None:
    links, end = chain(data.draw(st.integers(1, 8)))
    place = data.draw(st.integers(0, len(links) - 1))
    name = data.draw(st.sampled_from(ENTRY_FIELDS))
    entry = links[place].entry
    assert entry is not None
    value = data.draw(VALUES.get(name, TEXT).filter(lambda value: value != getattr(entry, name)))
    links[place] = replace(links[place], entry=replace(entry, **{name: value}))

    assert wrong(links, end) == [Finding("org_a", place + 1, "broken")]


@given(st.data())
def test_another_place_or_hash_of_any_event_is_found(data: st.DataObject) -> None:
    links, end = chain(data.draw(st.integers(1, 8)))
    place = data.draw(st.integers(0, len(links) - 1))
    link = links[place]
    if data.draw(st.booleans()):
        links[place] = replace(
            link, hash=data.draw(st.binary(min_size=32, max_size=32).filter(lambda h: h != link.hash))
        )
    else:
        others = {other.sequence for other in links}
        links[place] = replace(
            link, sequence=data.draw(st.integers(-3, 99).filter(lambda number: number not in others))
        )
        links.sort(key=lambda moved: moved.sequence)

    assert wrong(links, end) != []


@given(st.data())
def test_events_taken_out_put_in_or_moved_are_found(data: st.DataObject) -> None:
    links, end = chain(data.draw(st.integers(2, 8)))
    kept = st.lists(st.integers(0, len(links) - 1), max_size=9)
    shown = [links[index] for index in data.draw(st.permutations(range(len(links))) | kept)]
    if data.draw(st.booleans()):
        shown = [replace(link, sequence=number) for number, link in enumerate(shown, 1)]

    assert (wrong(shown, end) == []) == (shown == links)


@given(st.integers(1, 8), st.data())
def test_a_tail_that_was_cut_off_is_found(length: int, data: st.DataObject) -> None:
    links, end = chain(length)
    left = data.draw(st.integers(0, length - 1))

    assert wrong(links[:left], end) == [Finding("org_a", left + 1, "cut_off")]


@given(st.integers(1, 8))
def test_an_event_put_behind_the_end_is_found_though_it_follows(length: int) -> None:
    links, end = chain(length)
    links = linked([*(link.entry for link in links if link.entry is not None), made_up("org_a", 99)])

    assert wrong(links, end) == [Finding("org_a", length + 1, "beyond_end")]


# The same over PostgreSQL.

ORIGIN = Origin("user", "usr_1", "user_support", "203.0.113.9", "agent/1", "request-1")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        async with opened.transaction() as connection:
            for number in range(1, 6):
                for chain_id in ("org_a", "org_b", None):
                    await append(
                        connection, Event(f"step.{number}", chain_id, ORIGIN, ("t_1", "t_2"), {"é": [number, None]})
                    )
        yield opened


def findings(verdict: Verdict) -> list[tuple[str, int, str]]:
    return [(finding.chain, finding.sequence, finding.wrong) for finding in verdict.findings]


async def test_what_append_wrote_is_whole(database: Database) -> None:
    verdict = await verify(database)

    assert (verdict.whole, verdict.events) == (True, 15)
    assert {name: end.sequence for name, end in verdict.ends.items()} == {"org_a": 5, "org_b": 5, "gateway": 5}


async def test_an_empty_trail_is_whole(database_url: str) -> None:
    async with Database(database_url) as empty:
        assert (await verify(empty)).whole


@pytest.mark.parametrize(
    "change",
    [
        "id = 'evt_other'",
        "action = 'step.4'",
        "actor_kind = 'operator'",
        "actor_id = 'usr_2'",
        "actor_id = NULL",
        "impersonator_id = NULL",
        "targets = ARRAY['t_2', 't_1']",
        "targets = ARRAY['t_1,t_2']",
        "address = '203.0.113.8'",
        "user_agent = ''",
        "request_id = 'request-2'",
        "metadata = '{\"é\": [3, null]}'",
        "occurred_at = occurred_at + interval '1 microsecond'",
        "occurred_at = 'infinity'",
        "occurred_at = '0044-03-15 BC'",
    ],
)
async def test_a_changed_column_is_told_with_its_place(database: Database, change: str) -> None:
    async with bending(database) as connection:
        await connection.execute(f"UPDATE audit_events SET {change} WHERE chain = 'org_a' AND sequence = 3")

    assert findings(await verify(database)) == [("org_a", 3, "broken")]


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["DELETE FROM audit_events WHERE chain = 'org_a' AND sequence = 1"], [("org_a", 1, "missing")]),
        (["DELETE FROM audit_events WHERE chain = 'org_a' AND sequence IN (2, 3)"], [("org_a", 2, "missing")]),
        (["DELETE FROM audit_events WHERE chain = 'org_a' AND sequence > 3"], [("org_a", 4, "cut_off")]),
        (["DELETE FROM audit_events WHERE chain = 'org_a'"], [("org_a", 1, "cut_off")]),
        (["DELETE FROM audit_chains WHERE chain = 'org_a'"], [("org_a", 5, "end_missing")]),
        (["UPDATE audit_chains SET hash = sha256('x') WHERE chain = 'org_a'"], [("org_a", 5, "end_changed")]),
        (
            [
                "UPDATE audit_events SET sequence = 9 WHERE chain = 'org_a' AND sequence = 2",
                "UPDATE audit_events SET sequence = 2 WHERE chain = 'org_a' AND sequence = 3",
                "UPDATE audit_events SET sequence = 3 WHERE chain = 'org_a' AND sequence = 9",
            ],
            [("org_a", 2, "broken"), ("org_a", 3, "broken"), ("org_a", 4, "broken")],
        ),
        (
            ["UPDATE audit_events SET chain = 'org_c', sequence = 1 WHERE chain = 'org_a' AND sequence = 5"],
            [("org_a", 5, "cut_off"), ("org_c", 1, "broken"), ("org_c", 1, "end_missing")],
        ),
        (
            [
                "ALTER TABLE audit_events DROP CONSTRAINT audit_events_pkey, DROP CONSTRAINT audit_events_id_key",
                "INSERT INTO audit_events SELECT * FROM audit_events WHERE chain = 'org_a' AND sequence = 3",
            ],
            [("org_a", 3, "out_of_line")],
        ),
    ],
)
async def test_what_was_done_to_a_chain_is_told(
    database: Database, statements: list[str], expected: list[tuple[str, int, str]]
) -> None:
    async with bending(database) as connection:
        for statement in statements:
            await connection.execute(statement)

    assert findings(await verify(database)) == expected


async def test_one_chain_can_be_looked_at_alone(database: Database) -> None:
    async with bending(database) as connection:
        await connection.execute("UPDATE audit_events SET action = 'x' WHERE chain = 'org_a' AND sequence = 3")

    alone = await verify(database, "org_b")
    other = await verify(database, "org_a")

    assert (alone.whole, alone.events, list(alone.ends)) == (True, 5, ["org_b"])
    assert findings(other) == [("org_a", 3, "broken")]


async def test_findings_are_listed_up_to_a_number_and_counted_beyond(database: Database) -> None:
    async with bending(database) as connection:
        await connection.execute("UPDATE audit_events SET action = 'x'")

    verdict = await verify(database, most=4)

    assert (len(verdict.findings), verdict.more) == (4, 11)


async def test_events_that_are_appended_meanwhile_disturb_neither(database: Database) -> None:
    done = asyncio.Event()

    async def append_on() -> None:
        while not done.is_set():
            async with database.transaction() as connection:
                await append(connection, Event("more", "org_a", GATEWAY))

    appending = asyncio.create_task(append_on())
    verdicts = [await verify(database) for _ in range(20)]
    exported = [kept async for kept in export(database, "org_a")]
    done.set()
    await appending

    assert all(verdict.whole for verdict in verdicts)
    assert verdicts[-1].events > verdicts[0].events
    assert [kept.sequence for kept in exported] == list(range(1, len(exported) + 1))


async def test_chains_longer_than_a_round_trip_are_followed_across_it(database: Database, database_url: str) -> None:
    await fill(database_url, "org_long", 12_000)
    told: list[tuple[int, int]] = []

    verdict = await verify(database, told=lambda done, total: told.append((done, total)))

    assert (verdict.whole, verdict.events) == (True, 12_015)
    assert [done for done, _ in told] == [5000, 10_000, 12_015]
    assert {total for _, total in told} == {12_015}


# What others compute.


def recipe() -> Callable[[str], bool]:
    """The code of docs/audit.md, as it stands there."""
    text = (Path(__file__).parents[2] / "docs/audit.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    is_whole: Callable[[str], bool] = names["is_whole"]
    return is_whole


@given(TEXT, MAYBE, st.lists(TEXT, max_size=3), st.dictionaries(TEXT, TEXT | st.integers(-(2**53), 2**53)))
def test_the_recipe_of_the_documents_agrees_on_every_text(
    action: str, agent: str | None, targets: list[str], metadata: dict[str, Any]
) -> None:
    entry = replace(
        made_up("org_a", 1),
        action=action,
        user_agent=agent,
        targets=tuple(targets),
        metadata=json.dumps(metadata, ensure_ascii=False),
    )
    (link,) = linked([entry])
    line = exported_line(link, FIRST_HASH)

    assert recipe()(line)
    assert not recipe()(line.replace('"actorKind":"user"', '"actorKind":"operator"'))


def exported_line(link: Link, previous: bytes) -> str:
    assert link.entry is not None
    return _line(Kept(link.entry, link.sequence, link.hash, previous)).decode()


async def test_exported_lines_verify_by_the_recipe_and_hang_together(database: Database) -> None:
    lines = [_line(kept).decode() async for kept in export(database)]
    events = [json.loads(line) for line in lines]

    assert all(recipe()(line) for line in lines)
    assert len(lines) == 15
    for before, event in itertools.pairwise(events):
        if before["chain"] == event["chain"]:
            assert (event["sequence"], event["previousHash"]) == (before["sequence"] + 1, before["hash"])
        else:
            assert (event["sequence"], event["previousHash"]) == (1, "0" * 64)


async def test_an_export_can_be_of_one_chain_and_some_time(database: Database, database_url: str) -> None:
    await fill(database_url, "org_long", 100)
    since, until = made_up("", 20).occurred_at, made_up("", 30).occurred_at

    kept = [kept async for kept in export(database, "org_long", since, until)]

    assert [one.sequence for one in kept] == list(range(20, 30))
    assert kept[0].previous == linked([made_up("org_long", number) for number in range(1, 20)])[-1].hash
