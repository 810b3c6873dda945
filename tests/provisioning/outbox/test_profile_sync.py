from collections.abc import AsyncIterator

import aiohttp
import pytest

from provisioning.arrivals import Arrivals
from provisioning.clerk_api import ClerkApi, ClerkUnanswered
from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.outbox.announcements import Announcements
from provisioning.outbox.profile_sync import ProfileSync
from provisioning.records import Subject
from provisioning.users import Users
from tests.support.clerk_backend import SECRET_KEY, ClerkBackend, Failure
from tests.support.outboxes import delivering, rows, until, until_delivered
from tests.support.tokens import execute

BOTH = Announcements(frozenset({"profile", "posthog"}))
ALONE = Announcements(frozenset({"profile"}))
ALICE = Subject("user_alice")


@pytest.fixture
async def backend() -> AsyncIterator[ClerkBackend]:
    async with ClerkBackend().running() as running:
        running.add_user("user_alice")
        yield running


def api_of(backend: ClerkBackend, session: aiohttp.ClientSession) -> ClerkApi:
    return ClerkApi(session, backend.url, SECRET_KEY)


async def arrive(
    database: Database, api: ClerkApi, subject: Subject = ALICE, announcements: Announcements = ALONE
) -> None:
    await Arrivals(FirstSight(database, announcements=announcements), api).standing(subject)


async def known(database: Database) -> tuple[str | None, str | None]:
    user = await Users(database).named("user_alice")
    assert user is not None
    return user.name, user.email


@pytest.mark.parametrize("failure", ["failed", "rate_limited", "reset", "garbage", "redirect"])
async def test_a_person_created_while_clerk_was_away_gets_their_profile_later(
    database: Database, session: aiohttp.ClientSession, backend: ClerkBackend, failure: Failure
) -> None:
    backend.failure, backend.retry_after = failure, "1"
    api = api_of(backend, session)
    await arrive(database, api)
    before = await known(database)
    backend.failure = None
    async with delivering(database, ProfileSync(database, api, ALONE)):
        await until_delivered(database, 1)

    assert before == (None, None)
    assert await known(database) == ("Alice Ng", "alice@example.com")


async def test_whoever_clerk_told_of_is_not_asked_about_again(
    database: Database, session: aiohttp.ClientSession, backend: ClerkBackend
) -> None:
    backend.users["user_alice"]["email_addresses"] = []
    api = api_of(backend, session)
    await arrive(database, api)

    assert await known(database) == ("Alice Ng", None)
    assert await rows(database) == []


async def test_a_person_whose_token_tells_all_is_not_asked_about(
    database: Database, session: aiohttp.ClientSession, backend: ClerkBackend
) -> None:
    backend.failure = "failed"
    subject = Subject("user_alice", name="Alice", email="alice@example.com")
    await arrive(database, api_of(backend, session), subject)

    assert await rows(database) == []


async def test_a_person_clerk_does_not_have_ends_the_question(
    database: Database, session: aiohttp.ClientSession, backend: ClerkBackend
) -> None:
    backend.failure = "failed"
    api = api_of(backend, session)
    await arrive(database, api)
    backend.failure = None
    backend.users.clear()
    async with delivering(database, ProfileSync(database, api, ALONE)):
        await until_delivered(database, 1)

    assert await known(database) == (None, None)


async def test_a_429_waits_for_as_long_as_it_says(
    database: Database, session: aiohttp.ClientSession, backend: ClerkBackend
) -> None:
    backend.failure, backend.retry_after = "rate_limited", "30"
    api = api_of(backend, session)
    await arrive(database, api)
    async with delivering(database, ProfileSync(database, api, ALONE)) as outbox:
        await until(lambda: outbox.tally.deliveries["profile", "failed"] == 1)
    row = (await rows(database))[0]

    assert row["last_error"] == "rate_limited"
    assert row["wait"].total_seconds() > 25
    assert len(backend.asked) == 1


async def test_what_came_in_between_is_not_overwritten(
    database: Database, session: aiohttp.ClientSession, backend: ClerkBackend
) -> None:
    backend.failure = "failed"
    api = api_of(backend, session)
    await arrive(database, api)
    await execute(database, "UPDATE users SET name = 'Alice of today'")
    backend.failure = None
    async with delivering(database, ProfileSync(database, api, ALONE)):
        await until_delivered(database, 1)

    assert await known(database) == ("Alice of today", "alice@example.com")


async def test_a_deleted_person_gets_no_profile(
    database: Database, session: aiohttp.ClientSession, backend: ClerkBackend
) -> None:
    backend.failure = "failed"
    api = api_of(backend, session)
    await arrive(database, api)
    await execute(database, "UPDATE users SET deleted_at = now()")
    backend.failure = None
    async with delivering(database, ProfileSync(database, api, BOTH)):
        await until_delivered(database, 1)

    assert await known(database) == (None, None)


async def test_others_are_told_what_was_learned_later(
    database: Database, session: aiohttp.ClientSession, backend: ClerkBackend
) -> None:
    backend.failure = "failed"
    api = api_of(backend, session)
    await arrive(database, api, announcements=BOTH)
    backend.failure = None
    async with delivering(database, ProfileSync(database, api, BOTH)) as outbox:
        await until(lambda: outbox.tally.deliveries["profile", "delivered"] == 1)
    told = [row for row in await rows(database) if row["topic"] == "posthog"]

    assert [row["kind"] for row in told] == ["user_created", "profile"]
    assert told[1]["payload"]["person"]["email"] == "alice@example.com"
    assert told[0]["stream"] == told[1]["stream"]


async def test_without_a_secret_key_nothing_is_asked(session: aiohttp.ClientSession, backend: ClerkBackend) -> None:
    with pytest.raises(ClerkUnanswered):
        await ClerkApi(session, backend.url, None).ask_profile("user_alice", 1.0)

    assert backend.asked == []
