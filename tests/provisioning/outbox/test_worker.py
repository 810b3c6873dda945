"""Couriers and what wakes them, with a real PostgreSQL and receivers faked at their wire."""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from provisioning.database.pool import Database
from provisioning.outbox import courier
from provisioning.outbox.effects import Delivery, Topic
from provisioning.outbox.listener import Listener
from provisioning.outbox.posthog import Posthog
from provisioning.outbox.queue import CHANNEL, REJECTIONS
from provisioning.outbox.slack import Slack
from provisioning.outbox.worker import Rules
from tests.support.outboxes import (
    delivering,
    posthog_effect,
    rows,
    slack_effect,
    states,
    until,
    until_delivered,
    write,
)
from tests.support.postgres import PostgresServer
from tests.support.receivers import PROJECT_KEY, Failure, FakePosthog, FakeSlack
from tests.support.tokens import execute

ROOT = Path(__file__).resolve().parents[3]
SLOW_POLLS = Rules(poll_every_s=3600.0, look_every_s=0.05)

# A process of its own that delivers until it is killed.
WORKER = """
import asyncio, sys
import aiohttp
from provisioning.database.pool import Database
from provisioning.outbox.slack import Slack
from tests.support.outboxes import delivering

async def main():
    async with aiohttp.ClientSession() as session, Database(sys.argv[1]) as database:
        async with delivering(database, Slack(session, sys.argv[2])):
            print("ready", flush=True)
            await asyncio.sleep(3600)

asyncio.run(main())
"""


def slack_to(fake: FakeSlack, session: aiohttp.ClientSession, deadline_s: float = 5.0) -> Slack:
    return Slack(session, fake.webhook_url, deadline_s=deadline_s)


def posthog_to(fake: FakePosthog, session: aiohttp.ClientSession, deadline_s: float = 5.0, most: int = 100) -> Posthog:
    return Posthog(session, fake.url, PROJECT_KEY, deadline_s=deadline_s, most=most)


async def test_what_is_written_is_delivered_at_once_because_workers_are_told(
    database: Database, session: aiohttp.ClientSession, slack_fake: FakeSlack
) -> None:
    async with delivering(database, slack_to(slack_fake, session), rules=SLOW_POLLS):
        await write(database, slack_effect(0))
        await until_delivered(database, 1)
        await write(database, slack_effect(1))
        await until_delivered(database, 2)

    assert slack_fake.keys == ["user_created:usr_0", "user_created:usr_1"]


async def test_what_waits_already_is_delivered_at_the_start(
    database: Database, session: aiohttp.ClientSession, slack_fake: FakeSlack
) -> None:
    await write(database, slack_effect(0))
    async with delivering(database, slack_to(slack_fake, session), rules=SLOW_POLLS, listen=False):
        await until_delivered(database, 1)


async def test_without_notifications_polling_finds_everything(
    database: Database, session: aiohttp.ClientSession, slack_fake: FakeSlack
) -> None:
    async with delivering(database, slack_to(slack_fake, session), listen=False):
        await write(database, slack_effect(0))
        await until_delivered(database, 1)


FAILURES: list[Failure] = ["failed", "rate_limited", "refused", "rejected", "redirect", "close", "lost", "hang"]


@pytest.mark.parametrize("failure", FAILURES)
async def test_every_failure_is_tried_again_until_it_works(
    database: Database, session: aiohttp.ClientSession, slack_fake: FakeSlack, failure: Failure
) -> None:
    slack_fake.failures = [failure, failure]
    await write(database, slack_effect(0))
    with capture_logs() as logs:
        async with delivering(database, slack_to(slack_fake, session, deadline_s=0.5)) as outbox:
            await until_delivered(database, 1)

    assert set(slack_fake.keys) == {"user_created:usr_0"}
    assert len(slack_fake.posted) == (3 if failure == "lost" else 1)  # Slack knows no keys
    assert outbox.tally.deliveries == {("slack", "failed"): 2, ("slack", "delivered"): 1}
    assert "secret" not in repr(logs)  # the last part of the webhook's address


@pytest.mark.parametrize("failure", FAILURES)
async def test_posthog_has_each_event_once_whatever_fails(
    database: Database, session: aiohttp.ClientSession, posthog_fake: FakePosthog, failure: Failure
) -> None:
    posthog_fake.failures = [failure]
    await write(database, *(posthog_effect(number, user=f"usr_{number}") for number in range(5)))
    async with delivering(database, posthog_to(posthog_fake, session, deadline_s=0.5)):
        await until_delivered(database, 5)

    assert len(posthog_fake.events) == 5


async def test_a_receiver_that_is_down_gets_everything_once_it_is_back(
    database: Database, session: aiohttp.ClientSession, slack_fake: FakeSlack
) -> None:
    await slack_fake.down()
    await write(database, *(slack_effect(number) for number in range(6)))
    async with delivering(database, slack_to(slack_fake, session)) as outbox:
        await until(lambda: outbox.tally.deliveries["slack", "failed"] >= 8)
        # As after a long outage: nothing of it is due for a while, except what tells that it is over.
        await execute(database, "UPDATE outbox SET next_attempt_at = now() + interval '1 hour' WHERE id > 1")
        await slack_fake.up()
        await until_delivered(database, 6)

    assert len(set(slack_fake.keys)) == 6


async def test_a_receiver_that_hangs_holds_up_nobody_else(
    database: Database,
    session: aiohttp.ClientSession,
    slack_fake: FakeSlack,
    posthog_fake: FakePosthog,
) -> None:
    slack_fake.failing = "hang"
    await write(database, slack_effect(0), *(posthog_effect(number) for number in range(5)))
    async with delivering(database, slack_to(slack_fake, session, 60.0), posthog_to(posthog_fake, session)):
        await until(lambda: len(posthog_fake.events) == 5 and len(slack_fake.asked) == 1)
        waiting = await rows(database)

    assert [row["state"] for row in waiting if row["topic"] == "slack"] == ["pending"]


async def test_no_connection_is_held_while_a_receiver_is_waited_for(
    database_url: str, session: aiohttp.ClientSession, slack_fake: FakeSlack
) -> None:
    slack_fake.failing = "hang"
    async with Database(database_url, pool_size=1, acquire_timeout=5.0) as database:
        await write(database, slack_effect(0))
        async with delivering(database, slack_to(slack_fake, session, 60.0), listen=False):
            await until(lambda: len(slack_fake.asked) == 1)
            async with database.connection() as connection:
                idle = await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
                )

    assert idle == 0


async def test_nothing_is_asked_again_before_the_time_a_429_names(
    database: Database, session: aiohttp.ClientSession, slack_fake: FakeSlack
) -> None:
    slack_fake.retry_after = "3600"
    slack_fake.failures = ["rate_limited"]
    await write(database, slack_effect(0), slack_effect(1))
    async with delivering(database, slack_to(slack_fake, session)) as outbox:
        await until(lambda: bool(outbox.tally.deliveries))
        await asyncio.sleep(0.5)
        limited, other = await rows(database)

    assert len(slack_fake.asked) == 1
    assert limited["wait"].total_seconds() > 3500
    assert other["attempts"] == 0


async def test_one_that_is_not_taken_is_given_up_and_does_not_spoil_its_batch(
    database: Database, session: aiohttp.ClientSession, posthog_fake: FakePosthog
) -> None:
    spoiled = posthog_effect(9, user="")
    await write(database, posthog_effect(1, user="usr_a"), spoiled, posthog_effect(2, user="usr_b"))
    await execute(database, "UPDATE outbox SET rejections = $1 WHERE key = $2", REJECTIONS - 1, spoiled.key)
    with capture_logs() as logs:
        async with delivering(database, posthog_to(posthog_fake, session)) as outbox:
            await until(lambda: ("posthog", "dead") in outbox.tally.deliveries)
            await until(lambda: outbox.tally.deliveries["posthog", "delivered"] == 2)

    assert await states(database) == ["delivered", "dead", "delivered"]
    assert len(posthog_fake.asked) == 4
    assert [line["reason"] for line in logs if line["event"] == "outbox_gave_up"] == ["rejected"]


class Broken:
    """A receiver with a mistake in it, once."""

    topic: Topic = "slack"
    most = 1
    deadline_s = 5.0
    calls = 0

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        self.calls += 1
        if self.calls == 1:
            raise KeyError("organizationId")


async def test_a_mistake_of_ours_loses_nothing_and_ends_no_courier(database: Database) -> None:
    await write(database, slack_effect(0))
    with capture_logs() as logs:
        async with delivering(database, Broken()):
            await until_delivered(database, 1)

    assert [line["error"] for line in logs if line["event"] == "outbox_receiver_broke"] == ["KeyError"]


async def test_several_workers_deliver_each_row_once_and_by_one_at_a_time(
    database_url: str, database: Database, session: aiohttp.ClientSession, slack_fake: FakeSlack
) -> None:
    slack_fake.delay_s = 0.02
    await write(database, *(slack_effect(number) for number in range(40)))
    async with AsyncExitStack() as stack:
        for _ in range(4):
            own = await stack.enter_async_context(Database(database_url, acquire_timeout=60, statement_timeout=60))
            await stack.enter_async_context(delivering(own, slack_to(slack_fake, session)))
        await write(database, *(slack_effect(number) for number in range(40, 60)))
        await until_delivered(database, 60)

    assert len(slack_fake.asked) == len(set(slack_fake.keys)) == 60
    assert slack_fake.most_at_once == 1


async def test_a_worker_killed_while_it_delivers_loses_nothing(
    database_url: str,
    database: Database,
    session: aiohttp.ClientSession,
    slack_fake: FakeSlack,
) -> None:
    slack_fake.failures = ["hang"]
    await write(database, *(slack_effect(number) for number in range(3)))
    command = [sys.executable, "-c", WORKER, database_url, slack_fake.webhook_url]
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        await until(lambda: len(slack_fake.asked) == 1)
    finally:
        child.kill()
        await child.wait()
    killed = (await rows(database))[0]
    # Its lease is over in ten seconds; nobody waits for that here.
    await execute(database, "UPDATE outbox SET next_attempt_at = now() WHERE taken_by IS NOT NULL")
    async with delivering(database, slack_to(slack_fake, session)):
        await until_delivered(database, 3)

    assert (killed["state"], killed["attempts"]) == ("pending", 1)
    assert 0 < killed["wait"].total_seconds() <= 5.0 + courier.LEASE_BEYOND_DEADLINE_S
    assert sorted(str(key) for key in slack_fake.keys) == [slack_effect(number).key for number in range(3)]


async def test_a_lease_that_ends_brings_the_row_back_by_itself(
    database: Database, session: aiohttp.ClientSession, slack_fake: FakeSlack
) -> None:
    await write(database, slack_effect(0))
    await execute(
        database,
        "UPDATE outbox SET taken_by = 'dead worker', attempts = 1, next_attempt_at = now() + interval '1 second'",
    )
    async with delivering(database, slack_to(slack_fake, session), listen=False):
        await until_delivered(database, 1)


async def test_ending_lets_a_delivery_under_way_come_to_its_end(
    database: Database, session: aiohttp.ClientSession, slack_fake: FakeSlack
) -> None:
    slack_fake.delay_s = 0.3
    await write(database, slack_effect(0), slack_effect(1))
    async with delivering(database, slack_to(slack_fake, session)):
        await until(lambda: len(slack_fake.asked) == 1)

    assert await states(database) == ["delivered", "pending"]
    assert len(slack_fake.asked) == 1


async def test_ending_gives_back_what_takes_too_long(
    database: Database, session: aiohttp.ClientSession, slack_fake: FakeSlack
) -> None:
    slack_fake.failing = "hang"
    await write(database, slack_effect(0))
    async with delivering(database, slack_to(slack_fake, session, 60.0)) as outbox:
        await until(lambda: len(slack_fake.asked) == 1)
        await outbox.close(0.05)
    row = (await rows(database))[0]

    assert (row["state"], row["taken_by"], row["wait"].total_seconds() <= 0) == ("pending", None, True)


async def test_deliveries_go_on_after_postgresql_was_away(
    postgres_server: PostgresServer, session: aiohttp.ClientSession, slack_fake: FakeSlack
) -> None:
    async with Database(postgres_server.url) as database, delivering(database, slack_to(slack_fake, session)):
        await write(database, slack_effect(0))
        await until_delivered(database, 1)
        await postgres_server.stop()
        await until(lambda: sum(database.failures.values()) > 0)
        await postgres_server.start()
        await execute_when_there(database)
        await write(database, slack_effect(1))
        await until_delivered(database, 2)

    assert len(slack_fake.posted) == 2


async def execute_when_there(database: Database) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await execute(database, "SELECT 1")
            except Exception:
                await asyncio.sleep(0.1)
            else:
                return


async def test_a_listener_whose_connection_dies_listens_again(database: Database, database_url: str) -> None:
    heard: list[str] = []
    connections: list[None] = []
    listener = Listener(database_url, heard.append, lambda: connections.append(None))
    listener.start()
    await until(lambda: len(connections) == 1)
    await execute(
        database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gateway outbox'"
    )
    await until(lambda: len(connections) == 2)
    await execute(database, f"NOTIFY {CHANNEL}, 'slack'")
    await until(lambda: heard == ["slack"])
    await listener.close()


async def test_a_listener_without_a_server_waits_for_one_and_ends_when_told() -> None:
    listener = Listener("postgresql://127.0.0.1:1/nowhere", print, print)
    listener.start()
    await asyncio.sleep(0.05)
    await listener.close()


async def test_what_waits_is_counted_without_anybody_delivering(database: Database) -> None:
    await write(database, slack_effect(0), posthog_effect(1))
    async with delivering(database) as outbox:
        await until(lambda: len(outbox.tally.depth) == 2)

        assert {topic: depth.pending for topic, depth in outbox.tally.depth.items()} == {"slack": 1, "posthog": 1}
    assert await states(database) == ["pending", "pending"]


async def test_upkeep_deletes_what_was_delivered_long_ago(
    database: Database, session: aiohttp.ClientSession, slack_fake: FakeSlack
) -> None:
    await write(database, slack_effect(0))
    rules = Rules(keep_delivered_s=0.01, poll_every_s=0.1, prune_every_s=0.05)
    async with delivering(database, slack_to(slack_fake, session), rules=rules):
        await until(lambda: len(slack_fake.posted) == 1)
        async with asyncio.timeout(20):
            while await rows(database):  # noqa: ASYNC110 - a row wakes nobody
                await asyncio.sleep(0.02)


async def test_an_error_of_postgresql_is_told_and_the_next_round_comes(
    database: Database, session: aiohttp.ClientSession, slack_fake: FakeSlack
) -> None:
    await execute(database, "ALTER TABLE outbox RENAME TO elsewhere")
    with capture_logs() as logs:
        async with delivering(database, slack_to(slack_fake, session)):
            await until(lambda: {"outbox_failed", "outbox_upkeep_failed"} <= {entry["event"] for entry in logs})
            await execute(database, "ALTER TABLE elsewhere RENAME TO outbox")
            await write(database, slack_effect(0))
            await until_delivered(database, 1)
