"""A long audit trail: how fast it is verified and read. `NIGHTLY_EVENTS` makes it shorter."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from provisioning.audit_trail import Wanted, page_statement
from provisioning.database.pool import Database
from tests.support.audit import bending, fill, made_up
from tests.support.settings_files import VALID, write
from tests.test_cli import ROOT

EVENTS = int(os.environ.get("NIGHTLY_EVENTS", "1000000"))
VERIFIED_WITHIN_S = 60.0
PAGE_WITHIN_MS = 50.0
MIDDLE, A_FEW = made_up("", EVENTS // 2).occurred_at, made_up("", EVENTS // 2 + 100).occurred_at
PAGES = {
    "newest": Wanted(),
    "action, one in five": Wanted(action="user.login"),
    "action, one in a thousand": Wanted(action="key_ring.rotated"),
    "prefix, two in five": Wanted(action="user.*"),
    "prefix, one in a thousand": Wanted(action="key_ring.*"),
    "prefix, none": Wanted(action="nothing.*"),
    "actor": Wanted(actor_id="usr_5"),
    "target": Wanted(target="atk_17"),
    "older half": Wanted(before=MIDDLE),
    "a few seconds of the middle": Wanted(after=MIDDLE, before=A_FEW),
    "action of an actor in the older half": Wanted(action="user.*", actor_id="usr_5", before=MIDDLE),
}


@pytest.fixture
def config(database_url: str, tmp_path: Path) -> Path:
    return write(tmp_path, VALID.replace("postgresql://gateway@127.0.0.1/gateway", database_url))


async def test_a_chain_of_a_million_events_is_verified_within_a_minute(database_url: str, config: Path) -> None:
    await fill(database_url, "org_long", EVENTS)
    started = time.perf_counter()
    whole = _verify(config)
    took = time.perf_counter() - started
    async with Database(database_url, statement_timeout=60) as database, bending(database) as connection:
        await connection.execute("UPDATE audit_events SET address = NULL WHERE sequence = $1", EVENTS - 3)
    bent = _verify(config)
    print(f"{EVENTS} events verified in {took:.1f} s")  # noqa: T201 - `make nightly ARGS=-s` shows it

    assert (whole.returncode, whole.stdout) == (0, f"1 chains, {EVENTS} events: whole\n")
    assert bent.returncode == 1
    assert f"org_long event {EVENTS - 3} " in bent.stdout
    assert took < VERIFIED_WITHIN_S


async def test_pages_of_a_long_trail_come_at_once(database_url: str) -> None:
    for chain in ("org_a", "org_b", "org_c"):
        await fill(database_url, chain, EVENTS // 3)
    connection = await asyncpg.connect(database_url)
    await connection.execute("VACUUM ANALYZE audit_events")
    slow = {}
    for name, wanted in PAGES.items():
        statement, arguments = page_statement("org_b", wanted, 50, None)
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *arguments)
        plan = json.loads(text)[0]
        took = plan["Execution Time"]
        print(f"{name}: {took:.2f} ms, {_scans(plan['Plan'])}")  # noqa: T201
        if took > PAGE_WITHIN_MS:
            slow[name] = took
    await connection.close()

    assert slow == {}


def _verify(config: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "gateway", "audit", "verify", "-c", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def _scans(plan: dict[str, object]) -> str:
    children = plan.get("Plans", [])
    assert isinstance(children, list)
    own = f"{plan['Node Type']} {plan.get('Index Name', '')}".strip()
    return " < ".join([own, *(_scans(child) for child in children)])
