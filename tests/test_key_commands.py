"""`gateway keys`, against a real PostgreSQL, and the start of `gateway serve` over keys that do not open."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provisioning.database.pool import Database
from provisioning.ring_records import KeyRow
from tests.support.rings import Clock, records_over, ring_over, started
from tests.support.settings_files import MASTER_KEY, VALID, write
from tests.test_cli import Ran, call, run
from tests.test_token_commands import Records

OTHER = "another-key-of-these-tests-with-enough-characters"


@pytest.fixture
def records(database_url: str, tmp_path: Path) -> Records:
    return Records(database_url, tmp_path)


@pytest.fixture
def keys(records: Records, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `gateway keys …` with the settings of the records."""
    return lambda *words: call(capsys, "keys", *words, "-c", str(records.config))


def rows(records: Records, master_key: str = MASTER_KEY) -> list[KeyRow]:
    return records.ask(lambda database: records_over(database, master_key).read())


def items(ran: Ran) -> list[dict[str, Any]]:
    assert ran.code == 0, ran.err
    found: list[dict[str, Any]] = json.loads(ran.out)["items"]
    return found


def test_before_the_first_start_there_is_no_key(keys: Callable[..., Ran]) -> None:
    ran = keys("list")

    assert (ran.code, ran.out) == (0, "")
    assert "gateway serve" in ran.err


def test_the_next_key_is_published_and_signs_later(keys: Callable[..., Ran]) -> None:
    first = items(keys("rotate", "--now", "--json"))
    both = items(keys("rotate", "--json"))

    assert [key["state"] for key in first] == ["active"]
    assert [key["state"] for key in both] == ["active", "published"]
    assert both[0]["kid"] == first[0]["kid"]
    assert both[0]["overAt"] > both[1]["signsFrom"]
    assert both == items(keys("list", "--json"))


def test_a_key_that_was_only_published_gives_way(keys: Callable[..., Ran]) -> None:
    keys("rotate", "--now")
    waiting = items(keys("rotate", "--json"))[1]["kid"]
    states = {key["kid"]: key["state"] for key in items(keys("rotate", "--now", "--json"))}

    assert sorted(states.values()) == ["active", "retiring"]
    assert waiting not in states


def test_discarding_leaves_one_key(keys: Callable[..., Ran]) -> None:
    first = items(keys("rotate", "--now", "--json"))[0]["kid"]
    (left,) = items(keys("rotate", "--discard", "--json"))

    assert left["state"] == "active"
    assert left["kid"] != first


def test_keys_are_listed_for_people_without_a_secret(keys: Callable[..., Ran], records: Records) -> None:
    keys("rotate", "--now")
    ran = keys("list")
    (row,) = rows(records)

    assert ran.out.splitlines()[0].split() == ["KID", "STATE", "SIGNS", "FROM", "OVER", "AT", "OPENS"]
    assert row.kid in ran.out
    assert row.sealed.hex() not in ran.out


def test_no_key_is_put_beside_those_of_another_master_key(keys: Callable[..., Ran], records: Records) -> None:
    records.ask(lambda database: records_over(database, OTHER).rotate(1.8e9, 1.7e9))
    refused = keys("rotate")
    listed = items(keys("list", "--json"))

    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("gateway keys rotate: cannot open the signing keys: ")
    assert [key["opens"] for key in listed] == [False]
    assert len(items(keys("rotate", "--discard", "--json"))) == 1


def test_serving_over_keys_of_another_master_key_is_refused_in_one_line(records: Records) -> None:
    records.ask(lambda database: records_over(database, OTHER).rotate(1.7e9, 1.7e9))
    anywhere = {"GW_ADMIN__LISTEN": "127.0.0.1:0", "GW_LISTEN": "127.0.0.1:0"}

    ran = run("serve", "-c", str(records.config), environ=anywhere)

    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("gateway serve: cannot open the signing keys: ")
    assert OTHER not in ran.err + ran.out
    assert MASTER_KEY not in ran.err + ran.out


def test_a_running_ring_takes_up_what_an_operator_made(keys: Callable[..., Ran], records: Records) -> None:
    made = items(keys("rotate", "--now", "--json"))[0]["kid"]

    async def ring_of(database: Database) -> list[str]:
        async with started(ring_over(database, Clock(), master_key=MASTER_KEY)) as ring:
            return [key.kid for key in ring.keys]

    assert made in records.ask(ring_of)


def test_settings_name_a_rotation_that_cannot_be(tmp_path: Path) -> None:
    text = f"{VALID}keys: {{rotate_every: 1h, publish_ahead: 40m, refresh_every: 30m}}\n"
    ran = run("check", "-c", str(write(tmp_path, text)))

    assert ran.code == 1
    assert "keys.publish_ahead: is more than half of keys.rotate_every" in ran.err
    assert "keys.refresh_every: is more than half of keys.publish_ahead" in ran.err
