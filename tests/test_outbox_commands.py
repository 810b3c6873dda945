"""`gateway outbox` and `gateway worker`, against a real PostgreSQL."""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from provisioning.database.pool import Database
from provisioning.outbox.queue import Queue
from tests.support.outboxes import slack_effect, states, until, until_delivered, write
from tests.support.receivers import FakeSlack
from tests.support.settings_files import VALID
from tests.support.settings_files import write as write_settings
from tests.test_cli import ROOT, Ran, call

T = TypeVar("T")
DAY_S = 86400.0


class Waiting:
    """A database in which two messages wait, one of them given up, and the settings file that names it."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self.config = write_settings(folder, VALID.replace("postgresql://gateway@127.0.0.1/gateway", url))
        self.ask(self._fill)

    async def _fill(self, database: Database) -> None:
        await write(database, slack_effect(1, email="alice@example.com"), slack_effect(2))
        queue = Queue(database)
        taken = await queue.take("slack", 2, 60)
        await queue.failed(taken, taken.deliveries[0], "refused", 0, 0.0)
        await queue.failed(taken, taken.deliveries[1], "timeout", 3600, DAY_S)

    def ask(self, question: Callable[[Database], Awaitable[T]]) -> T:
        async def run() -> T:
            async with Database(self._url) as database:
                return await question(database)

        return asyncio.run(run())


@pytest.fixture
def waiting(database_url: str, tmp_path: Path) -> Waiting:
    return Waiting(database_url, tmp_path)


@pytest.fixture
def outbox(waiting: Waiting, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `gateway outbox …` with these settings."""
    return lambda *words: call(capsys, "outbox", *words, "-c", str(waiting.config))


def items(ran: Ran) -> list[dict[str, Any]]:
    assert ran.code == 0, ran.err
    loaded: list[dict[str, Any]] = json.loads(ran.out)["items"]
    return loaded


def test_what_waits_and_what_was_given_up_are_listed_without_their_contents(outbox: Callable[..., Ran]) -> None:
    table = outbox("list")
    listed = items(outbox("list", "--json"))

    assert [(row["state"], row["lastError"], row["attempts"]) for row in listed] == [
        ("dead", "refused", 1),
        ("pending", "timeout", 1),
    ]
    assert listed[0]["key"] == "user_created:usr_1"
    assert [line.split()[4] for line in table.out.splitlines()] == ["STATE", "dead", "pending"]
    assert "alice@example.com" not in table.out + json.dumps(listed)


def test_lists_can_be_of_one_receiver_and_of_what_was_given_up(outbox: Callable[..., Ran]) -> None:
    assert [row["state"] for row in items(outbox("list", "--dead", "--json"))] == ["dead"]
    assert items(outbox("list", "--topic", "posthog", "--json")) == []
    assert outbox("list", "--topic", "stripe").err == "everything is delivered\n"


def test_one_row_can_be_tried_again(outbox: Callable[..., Ran], waiting: Waiting) -> None:
    row_id = items(outbox("list", "--dead", "--json"))[0]["id"]
    ran = outbox("retry", str(row_id))

    assert (ran.code, ran.out) == (0, "1 will be tried now\n")
    assert waiting.ask(states) == ["pending", "pending"]


def test_all_that_was_given_up_can_be_tried_again(outbox: Callable[..., Ran], waiting: Waiting) -> None:
    assert json.loads(outbox("retry", "--dead", "--json").out) == {"retried": 1}
    assert outbox("retry", "--dead").out == "0 will be tried now\n"


@pytest.mark.parametrize("words", [(), ("1", "--dead")])
def test_retry_wants_one_row_or_all_that_are_dead(outbox: Callable[..., Ran], words: tuple[str, ...]) -> None:
    ran = outbox("retry", *words)

    assert ran.code == 1
    assert "--dead" in ran.err


def test_a_row_that_is_not_there_is_said_in_one_line(outbox: Callable[..., Ran]) -> None:
    ran = outbox("retry", "999999")

    assert ran.code == 1
    assert ran.err.startswith("gateway outbox retry: there is no such row")
    assert len(ran.err.splitlines()) == 1


def test_a_schema_that_is_behind_is_said_in_one_line(
    empty_database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_settings(tmp_path, VALID.replace("postgresql://gateway@127.0.0.1/gateway", empty_database_url))
    ran = call(capsys, "outbox", "list", "-c", str(config))

    assert (ran.code, ran.err) == (1, "gateway outbox list: the schema is behind; run `gateway migrate`\n")


async def test_a_worker_alone_delivers_and_lets_a_delivery_end_before_it_does(
    database_url: str, tmp_path: Path
) -> None:
    fake = FakeSlack()
    fake.delay_s = 0.5
    text = VALID.replace("postgresql://gateway@127.0.0.1/gateway", database_url)
    config = write_settings(tmp_path, f"{text}slack: {{webhook_url: {fake.webhook_url}}}\n")
    async with fake.running(), Database(database_url) as database:
        await write(database, slack_effect(1))
        command = [sys.executable, "-m", "gateway", "worker", "-c", str(config)]
        worker = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        try:
            await until_delivered(database, 1)
            await write(database, slack_effect(2))
            await until(lambda: len(fake.asked) == 2)
            worker.send_signal(signal.SIGTERM)
            out, _ = await asyncio.wait_for(worker.communicate(), 20)
        finally:
            if worker.returncode is None:
                worker.kill()
        after = await states(database)
    events = [json.loads(line) for line in out.splitlines()]

    assert worker.returncode == 0
    assert after == ["delivered", "delivered"]
    assert [event["event"] for event in events] == ["delivering", "draining"]
    assert events[0]["topics"] == ["slack"]


def test_a_worker_needs_a_database_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(line for line in VALID.splitlines() if not line.startswith("database"))
    ran = call(capsys, "worker", "-c", str(write_settings(tmp_path, text)))

    assert ran.code == 1
    assert "database.url" in ran.err
