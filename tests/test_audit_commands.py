"""`gateway audit`, against a real PostgreSQL."""

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioning.database.pool import Database
from tests.support.audit import bending, fill
from tests.support.settings_files import VALID, write
from tests.test_cli import DEADLINE_S, ROOT, Ran, call


@pytest.fixture
def config(database_url: str, tmp_path: Path) -> Path:
    for chain, count in (("org_a", 7), ("org_b", 3), ("gateway", 2)):
        asyncio.run(fill(database_url, chain, count))
    return write(tmp_path, VALID.replace("postgresql://gateway@127.0.0.1/gateway", database_url))


@pytest.fixture
def audit(config: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `gateway audit …`."""
    return lambda *words: call(capsys, "audit", *words, "-c", str(config))


def bend(url: str, statement: str) -> None:
    async def run() -> None:
        async with Database(url) as database, bending(database) as connection:
            await connection.execute(statement)

    asyncio.run(run())


def test_whole_chains_are_said_to_be_whole(audit: Callable[..., Ran]) -> None:
    assert audit("verify") == Ran(0, "3 chains, 12 events: whole\n", "")
    assert audit("verify", "--organization", "org_b") == Ran(0, "1 chains, 3 events: whole\n", "")


def test_what_is_wrong_is_said_with_chain_and_place(audit: Callable[..., Ran], database_url: str) -> None:
    bend(database_url, "UPDATE audit_events SET action = 'x' WHERE chain = 'org_a' AND sequence = 4")
    bend(database_url, "DELETE FROM audit_events WHERE chain = 'gateway' AND sequence = 2")
    ran = audit("verify")

    assert ran.code == 1
    assert ran.out.splitlines() == [
        "gateway event 2 is missing, as are all up to the end of the chain",
        "org_a event 4 does not follow from the event before it: one of the two was changed, moved or put in",
        "3 chains, 11 events: NOT whole",
    ]
    assert audit("verify", "--organization", "org_b").code == 0


def test_json_has_findings_and_the_ends_to_keep_elsewhere(audit: Callable[..., Ran], database_url: str) -> None:
    before = json.loads(audit("verify", "--json").out)
    bend(database_url, "UPDATE audit_events SET action = 'x' WHERE chain = 'org_a' AND sequence = 4")
    ran = audit("verify", "--json", "--organization", "org_a")
    after = json.loads(ran.out)

    assert (before["whole"], before["events"], before["findings"]) == (True, 12, [])
    assert {end["chain"]: end["sequence"] for end in before["ends"]} == {"org_a": 7, "org_b": 3, "gateway": 2}
    assert all(len(end["hash"]) == 64 for end in before["ends"])
    assert (ran.code, after["whole"]) == (1, False)
    assert [(found["chain"], found["sequence"], found["wrong"]) for found in after["findings"]] == [
        ("org_a", 4, "broken")
    ]


@pytest.mark.parametrize("word", ["verify", "export"])
def test_a_chain_that_is_not_there_is_neither_whole_nor_empty(audit: Callable[..., Ran], word: str) -> None:
    ran = audit(word, "--organization", "org_none")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"gateway audit {word}: there is no audit chain of org_none; ")


def test_an_export_may_be_empty(audit: Callable[..., Ran]) -> None:
    ran = audit("export", "--organization", "org_a", "--since", "2036-01-01")

    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_an_export_is_one_event_a_line(audit: Callable[..., Ran]) -> None:
    events = [json.loads(line) for line in audit("export").out.splitlines()]
    some = [
        json.loads(line)
        for line in audit(
            "export", "--organization", "org_a", "--since", "2026-01-01T00:00:03Z", "--until", "2026-01-01T00:00:05"
        ).out.splitlines()
    ]

    assert [(event["chain"], event["sequence"]) for event in events] == [
        *(("gateway", number) for number in (1, 2)),
        *(("org_a", number) for number in range(1, 8)),
        *(("org_b", number) for number in (1, 2, 3)),
    ]
    assert [event["sequence"] for event in some] == [3, 4]
    assert json.loads(some[0]["metadata"])["number"] == 3


@pytest.mark.parametrize("words", [("--since", "yesterday"), ("--until", "2026-13-01")])
def test_a_moment_that_is_none_is_told(audit: Callable[..., Ran], words: tuple[str, ...]) -> None:
    ran = audit("export", *words)

    assert (ran.code, ran.out) == (1, "")
    assert words[0] in ran.err


def test_a_reader_that_has_enough_ends_the_export_quietly(config: Path, database_url: str) -> None:
    asyncio.run(fill(database_url, "org_long", 20_000))
    command = f"{sys.executable} -m gateway audit export -c {config} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )

    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_on_a_terminal_it_shows_how_far_it_is(config: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "audit", "verify", "-c", str(config)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=slave,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(slave)
    out, _ = process.communicate(timeout=DEADLINE_S)
    shown = os.read(master, 65536).decode()
    os.close(master)

    assert out == b"3 chains, 12 events: whole\n"
    assert "events" in shown


def test_a_database_without_the_tables_says_what_to_do(
    empty_database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(tmp_path, VALID.replace("postgresql://gateway@127.0.0.1/gateway", empty_database_url))
    ran = call(capsys, "audit", "verify", "-c", str(config))

    assert (ran.code, ran.err) == (1, "gateway audit verify: the schema is behind; run `gateway migrate`\n")
