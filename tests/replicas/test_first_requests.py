"""Many new people at once, over several gateways: each is made once, told of once, and nothing is half made."""

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from provisioning.database.pool import Database
from tests.support.gateway import mint_token
from tests.support.outboxes import rows, until_nothing_waits
from tests.support.receivers import PROJECT_KEY, FakePosthog, FakeSlack
from tests.support.replicas import Replicas, replicas_under_test
from tests.support.tokens import count
from tests.support.wire import bearer

PEOPLE, REQUESTS, GATEWAYS = 50, 1000, 4
RETURNS = 30
TOLD = 3
"""Of each person, besides logins: the message, `user_created` and `trial_started`."""


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    fake = FakeSlack()
    async with fake.running():
        yield fake


@pytest.fixture
async def posthog() -> AsyncIterator[FakePosthog]:
    fake = FakePosthog()
    async with fake.running():
        yield fake


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


def told_to(slack: FakeSlack, posthog: FakePosthog) -> dict[str, Any]:
    return {
        "slack": {"webhook_url": slack.webhook_url},
        "posthog": {"host": posthog.url, "project_key": PROJECT_KEY},
        "provisioning": {"trial_days": 14, "trial_plan": "pro"},
    }


def token_of(person: int) -> str:
    return mint_token(sub=f"user_{person}", sid=f"sess_{person}", name=f"Person {person}", email=f"{person}@x.example")


async def storm(replicas: Replicas, *, comes_back: bool = False) -> tuple[Counter[int], list[float]]:
    """Send all requests at once; gives how they were answered, and how many milliseconds each took.

    Who `comes_back` asks again after a 503: gateways that start anew take the processor from a PostgreSQL that is busy.
    """
    took: list[float] = []
    lines = [bearer(token_of(person)) for person in range(PEOPLE)]

    async def one(number: int) -> int:
        start = time.perf_counter()
        reply = await replicas.get("/x", lines[number % PEOPLE])
        for _ in range(RETURNS if comes_back else 0):
            if reply.status != 503:
                break
            await asyncio.sleep(float(reply.get("retry-after") or 0))
            reply = await replicas.get("/x", lines[number % PEOPLE])
        took.append((time.perf_counter() - start) * 1e3)
        return reply.status

    return Counter(await asyncio.gather(*(one(number) for number in range(REQUESTS)))), took


async def assert_all_made_once(database: Database, slack: FakeSlack, posthog: FakePosthog) -> None:
    await until_nothing_waits(database, PEOPLE * TOLD)
    assert await count(database, "users") == PEOPLE
    assert await count(database, "organizations") == PEOPLE
    assert await count(database, "memberships") == PEOPLE
    assert await count(database, "api_tokens") == PEOPLE
    assert await count(database, "subscriptions WHERE source = 'trial'") == PEOPLE
    assert await count(database, "audit_events WHERE action = 'user.created'") == PEOPLE
    # By key: Slack suppresses no message, and one may come twice when whoever sent it died before writing that down.
    assert set(slack.keys) == {row["key"] for row in await rows(database) if row["topic"] == "slack"}
    assert len(set(slack.keys)) == PEOPLE
    assert posthog.names().count("user_created") == PEOPLE
    assert posthog.names().count("trial_started") == PEOPLE


async def test_a_thousand_first_requests_of_fifty_people_make_fifty_of_everything(
    tmp_path: Path, database_url: str, database: Database, slack: FakeSlack, posthog: FakePosthog
) -> None:
    async with replicas_under_test(tmp_path, database_url, GATEWAYS, **told_to(slack, posthog)) as replicas:
        answers, took = await storm(replicas)
        print(  # noqa: T201 - the figure is asked for, and no test's to judge
            f"p50 {statistics.median(took):.0f} ms, p99 {statistics.quantiles(took, n=100)[98]:.0f} ms"
        )
        await assert_all_made_once(database, slack, posthog)

    assert answers == {200: REQUESTS}
    assert replicas.asked_again == 0
    assert len(slack.posted) == PEOPLE


async def test_gateways_killed_in_the_midst_of_it_leave_nothing_half_made(
    tmp_path: Path, database_url: str, database: Database, slack: FakeSlack, posthog: FakePosthog
) -> None:
    chance = random.Random(5)
    async with replicas_under_test(tmp_path, database_url, GATEWAYS, **told_to(slack, posthog)) as replicas:

        async def kill_some() -> None:
            for _ in range(6):
                await asyncio.sleep(chance.uniform(0.0, 0.4))
                await replicas.kill(chance.randrange(GATEWAYS))

        (answers, _), _ = await asyncio.gather(storm(replicas, comes_back=True), kill_some())
        await assert_all_made_once(database, slack, posthog)

    assert answers == {200: REQUESTS}
    assert replicas.killed == 6
