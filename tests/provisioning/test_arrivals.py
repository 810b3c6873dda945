import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from provisioning.arrivals import Arrivals
from provisioning.clerk_api import ClerkApi
from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.records import Subject
from tests.support.clerk_backend import SECRET_KEY, ClerkBackend

ALICE = Subject("user_alice")


@pytest.fixture
async def backend() -> AsyncIterator[ClerkBackend]:
    async with ClerkBackend().running() as running:
        running.add_user("user_alice")
        running.add_organization("org_acme", "Acme Inc.")
        yield running


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60, pool_size=2) as opened:
        yield opened


@pytest.fixture
async def arrivals(database: Database, backend: ClerkBackend) -> AsyncIterator[Arrivals]:
    async with aiohttp.ClientSession() as session:
        made = Arrivals(FirstSight(database), ClerkApi(session, backend.url, SECRET_KEY, deadline_s=5))
        yield made
        await made.close()


async def test_a_stranger_arrives_with_the_profile_clerk_knows(arrivals: Arrivals) -> None:
    standing = await arrivals.standing(ALICE)

    assert (standing.user.name, standing.user.email) == ("Alice Ng", "alice@example.com")
    assert arrivals.tally.provisioned_users == 1


async def test_claims_spare_the_question(arrivals: Arrivals, backend: ClerkBackend) -> None:
    standing = await arrivals.standing(Subject("user_alice", name="A", email="a@example.com"))

    assert (standing.user.name, standing.user.email) == ("A", "a@example.com")
    assert backend.asked == []


async def test_a_stranger_arrives_without_profile_when_clerk_fails(arrivals: Arrivals, backend: ClerkBackend) -> None:
    backend.failure = "failed"

    standing = await arrivals.standing(ALICE)

    assert (standing.user.name, standing.organization.name) == (None, "Personal")


async def test_a_known_user_is_found_without_any_question(arrivals: Arrivals, backend: ClerkBackend) -> None:
    first = await arrivals.standing(ALICE)
    backend.asked.clear()
    second = await arrivals.standing(ALICE)

    assert second == first
    assert backend.asked == []
    assert arrivals.tally.provisionings == sum(arrivals.tally.duration_counts) == 1


async def test_only_the_organization_is_asked_about_when_it_alone_is_new(
    arrivals: Arrivals, backend: ClerkBackend
) -> None:
    await arrivals.standing(ALICE)
    backend.asked.clear()
    standing = await arrivals.standing(Subject("user_alice", "org_acme", "acme"))

    assert standing.organization.name == "Acme Inc."
    assert backend.asked == ["/v1/organizations/org_acme"]


async def test_a_changed_role_or_name_in_the_token_is_followed(arrivals: Arrivals) -> None:
    await arrivals.standing(Subject("user_alice", "org_acme", "acme", "member"))
    standing = await arrivals.standing(Subject("user_alice", "org_acme", "acme", "admin", name="Alice B."))

    assert standing.organization_role == "admin"
    assert standing.user.name == "Alice B."
    assert standing.user.email == "alice@example.com"


async def test_one_flight_and_one_question_for_many_first_requests(arrivals: Arrivals, backend: ClerkBackend) -> None:
    backend.delay_s = 0.05

    standings = await asyncio.gather(*(arrivals.standing(ALICE) for _ in range(100)))

    assert len({standing.user.id for standing in standings}) == 1
    assert len(backend.asked) == 1
    assert arrivals.tally.provisionings == 1


async def test_a_cancelled_waiter_does_not_cancel_the_others(arrivals: Arrivals, backend: ClerkBackend) -> None:
    backend.delay_s = 0.05
    first = asyncio.create_task(arrivals.standing(ALICE))
    second = asyncio.create_task(arrivals.standing(ALICE))
    await asyncio.sleep(0.02)
    first.cancel()

    assert (await second).user.name == "Alice Ng"


async def test_no_database_connection_is_held_while_clerk_is_asked(
    arrivals: Arrivals, backend: ClerkBackend, database: Database
) -> None:
    backend.failure = "hang"
    waiting = [asyncio.create_task(arrivals.standing(Subject(f"user_{number}"))) for number in range(4)]
    while len(backend.asked) < 4:  # noqa: ASYNC110 - the fake raises no event
        await asyncio.sleep(0.01)
    async with database.connection() as one, database.connection() as two:  # the pool has two
        answers = await one.fetchval("SELECT 1"), await two.fetchval("SELECT 2")
    for task in waiting:
        task.cancel()

    assert answers == (1, 2)
