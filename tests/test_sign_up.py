"""A person's first request, and what happens elsewhere because of it: gateways as they run, receivers as they fail.

Of each person three things are told: the message, `user_created`, and their login, which is written a moment later.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from provisioning.database.pool import Database
from tests.support.clerk_backend import SECRET_KEY, ClerkBackend
from tests.support.gateway import gateway_under_test, mint_token
from tests.support.outboxes import rows, states, until, until_delivered, until_nothing_waits
from tests.support.receivers import PROJECT_KEY, FakePosthog, FakeSlack
from tests.support.tokens import count, events
from tests.support.wire import bearer
from tests.support.workers import Crew, crew_under_test


class Elsewhere:
    """Slack and PostHog, and the settings that name them."""

    def __init__(self) -> None:
        self.slack, self.posthog = FakeSlack(), FakePosthog()

    @property
    def asked(self) -> int:
        return len(self.slack.asked) + len(self.posthog.asked)

    def settings(self, **outbox: Any) -> dict[str, Any]:
        return {
            "slack": {"webhook_url": self.slack.webhook_url},
            "posthog": {"host": self.posthog.url, "project_key": PROJECT_KEY},
            "outbox": outbox,
            "provisioning": {"trial_days": 0},
        }

    async def up(self) -> None:
        await self.slack.up()
        await self.posthog.up()

    async def down(self) -> None:
        await self.slack.down()
        await self.posthog.down()


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    made = Elsewhere()
    await made.up()
    yield made
    await made.down()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


def token_of(number: int) -> str:
    return mint_token(
        sub=f"user_{number}", sid=f"sess_{number}", name=f"Person {number}", email=f"{number}@example.com"
    )


async def test_a_new_person_is_told_of_once_in_slack_and_posthog(
    database_url: str, database: Database, elsewhere: Elsewhere
) -> None:
    async with gateway_under_test(database_url, **elsewhere.settings()) as gateway:
        replies = [await gateway.get("/x", bearer(token_of(1))) for _ in range(3)]
        await until_delivered(database, 3)
        delivered = [
            await gateway.metric("gateway_outbox_deliveries_total", topic=topic, result="delivered")
            for topic in ("slack", "posthog")
        ]

    assert [reply.status for reply in replies] == [200, 200, 200]
    assert len(elsewhere.slack.posted) == 1
    assert "Person 1, 1@example.com" in elsewhere.slack.posted[0]["text"]
    assert elsewhere.posthog.names() == ["$identify", "$groupidentify", "user_created", "login"]
    assert delivered == [1.0, 2.0]


async def test_the_audit_trail_says_at_which_request_a_person_was_first_seen(
    database_url: str, database: Database
) -> None:
    async with gateway_under_test(database_url, tokens={"scopes": ["read"]}) as gateway:
        await asyncio.gather(*(gateway.get("/x", bearer(token_of(1)), "User-Agent: curl/8.14.1") for _ in range(3)))
        sent = {seen.one("x-request-id") for seen in gateway.upstream.received}
        chain = await gateway.get("/users/current", bearer(token_of(1)))
        told = await events(database, chain.json()["organization"]["id"])

    seen = [event for event in told if event["action"] != "user.login"]
    assert {event["action"] for event in seen} == {"user.created", "api_token.created", "subscription.trial_started"}
    assert {event["actor_kind"] for event in seen} == {"gateway"}
    assert {(event["address"], event["user_agent"]) for event in seen} == {("127.0.0.1", "curl/8.14.1")}
    assert len({event["request_id"] for event in seen} & sent) == 1


async def test_the_first_request_itself_calls_nobody(
    database_url: str, database: Database, elsewhere: Elsewhere
) -> None:
    async with gateway_under_test(database_url, **elsewhere.settings(deliver=False)) as gateway:
        reply = await gateway.get("/x", bearer(token_of(1)))
        waiting = await states(database)

    assert reply.status == 200
    assert waiting[:2] == ["pending", "pending"]
    assert elsewhere.asked == 0


@pytest.mark.parametrize("failing", ["hang", "failed", "rate_limited", "down"])
async def test_sign_ups_go_on_while_everything_is_away_and_are_told_of_when_it_is_back(
    database_url: str, database: Database, elsewhere: Elsewhere, failing: Any
) -> None:
    async with gateway_under_test(database_url, **elsewhere.settings()) as gateway:
        if failing == "down":
            await elsewhere.down()
        else:
            elsewhere.slack.failing = elsewhere.posthog.failing = failing
        replies = await asyncio.gather(*(gateway.get("/x", bearer(token_of(number))) for number in range(5)))
        away = await states(database)
        if failing == "down":
            await elsewhere.up()
        elsewhere.slack.failing = elsewhere.posthog.failing = None
        await until_delivered(database, 15)

    assert {reply.status for reply in replies} == {200}
    assert "delivered" not in away
    assert len({message["text"] for message in elsewhere.slack.posted}) == len(elsewhere.slack.posted) == 5
    assert elsewhere.posthog.names().count("user_created") == 5


async def test_a_profile_that_clerk_could_not_tell_comes_later(database_url: str, database: Database) -> None:
    backend = ClerkBackend(failure="failed")
    backend.add_user("user_1")
    async with backend.running():
        clerk = {"api_url": backend.url, "secret_key": SECRET_KEY}
        async with gateway_under_test(database_url, clerk=clerk) as gateway:
            before = (await gateway.get("/users/current", bearer(mint_token(sub="user_1")))).json()
            backend.failure = None
            await until_delivered(database, 1)
            people = await count(database, "users WHERE name = 'Alice Ng' AND email = 'alice@example.com'")

    assert before["name"] is None
    assert people == 1


async def test_a_receiver_added_by_a_reload_hears_of_the_next_person(
    database_url: str, database: Database, elsewhere: Elsewhere
) -> None:
    async with gateway_under_test(database_url) as gateway:
        await gateway.get("/x", bearer(token_of(1)))
        reloaded = await gateway.reload(**elsewhere.settings())
        await gateway.get("/x", bearer(token_of(2)))
        await until_delivered(database, 3)

    assert reloaded
    assert ["Person 2" in message["text"] for message in elsewhere.slack.posted] == [True]


async def test_a_reload_that_changes_nothing_of_it_leaves_the_outbox_and_its_counts(
    database_url: str, database: Database, elsewhere: Elsewhere
) -> None:
    async with gateway_under_test(database_url, **elsewhere.settings()) as gateway:
        await gateway.get("/x", bearer(token_of(1)))
        await until_delivered(database, 3)
        kept = gateway.reloader.current.sources.outbox
        await gateway.reload(hosts=["127.0.0.1"])
        same = gateway.reloader.current.sources.outbox is kept
        await gateway.reload(outbox={"keep_delivered": "1d"})
        delivered = await gateway.metric("gateway_outbox_deliveries_total", result="delivered")

    assert same
    assert delivered == 3


async def arrive(crew: Crew, number: int) -> int:
    return (await crew.get("/x", bearer(token_of(number)))).status


async def test_many_new_people_over_several_workers_are_each_told_of_once(
    tmp_path: Path, database_url: str, redis_url: str, database: Database, elsewhere: Elsewhere
) -> None:
    async with crew_under_test(tmp_path, database_url, redis_url, **elsewhere.settings()) as crew:
        statuses = await asyncio.gather(*(arrive(crew, number % 20) for number in range(100)))
        await until_delivered(database, 60)

    assert set(statuses) == {200}
    assert await count(database, "users") == 20
    assert len(elsewhere.slack.posted) == len(set(elsewhere.slack.keys)) == 20
    assert elsewhere.posthog.names().count("user_created") == 20
    assert elsewhere.slack.most_at_once == 1


async def test_depth_of_the_one_table_is_told_once_by_several_workers(
    tmp_path: Path, database_url: str, redis_url: str, elsewhere: Elsewhere
) -> None:
    elsewhere.slack.failing = elsewhere.posthog.failing = "refused"
    async with crew_under_test(tmp_path, database_url, redis_url, **elsewhere.settings()) as crew:
        await asyncio.gather(*(arrive(crew, number) for number in range(6)))
        async with asyncio.timeout(30):
            while await crew.metric("gateway_outbox_pending", topic="slack") != 6:  # noqa: ASYNC110 - asked from outside
                await asyncio.sleep(0.1)
        oldest = await crew.metric("gateway_outbox_oldest_seconds", topic="slack")
        failed = await crew.metric("gateway_outbox_deliveries_total", topic="slack", result="failed")

    assert 0 < oldest < 60
    assert failed > 0


async def test_workers_killed_while_they_deliver_lose_nothing(
    tmp_path: Path, database_url: str, redis_url: str, database: Database, elsewhere: Elsewhere
) -> None:
    elsewhere.slack.delay_s = elsewhere.posthog.delay_s = 0.1
    async with AsyncExitStack() as stack:
        crew = await stack.enter_async_context(
            crew_under_test(tmp_path, database_url, redis_url, **elsewhere.settings())
        )
        statuses = await asyncio.gather(*(arrive(crew, number) for number in range(10)))
        for worker in (0, 1):
            os.kill(crew.pid(worker), signal.SIGKILL)
            await crew.told("worker listening", 2, worker=worker)
        await until(lambda: len(set(elsewhere.slack.keys)) == 10)
        await until_nothing_waits(database, 20)  # a login may be lost with the worker that had it in memory
    told = await rows(database)

    assert set(statuses) == {200}
    assert set(elsewhere.slack.keys) == {row["key"] for row in told if row["topic"] == "slack"}
    assert elsewhere.posthog.names().count("user_created") == 10
    assert elsewhere.slack.most_at_once == 1
