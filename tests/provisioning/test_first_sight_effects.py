"""What first sight leaves to the outbox, in its one transaction."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.new_tokens import FirstToken
from provisioning.outbox.announcements import Announcements
from provisioning.profile import Profile
from provisioning.records import Subject
from tests.support.outboxes import rows
from tests.support.tokens import RULES, SEALER, actions, count, execute

ALL = Announcements(frozenset({"slack", "posthog", "stripe", "profile"}))
ALONE = Subject("user_alice")
AT_ACME = Subject("user_alice", "org_acme", "acme", "org_admin")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


@pytest.fixture
def sight(database: Database) -> FirstSight:
    return FirstSight(database, first_token=FirstToken(SEALER, RULES), announcements=ALL)


async def kinds(database: Database) -> list[tuple[str, str]]:
    return [(row["topic"], row["kind"]) for row in await rows(database)]


async def test_a_new_user_is_announced_once_with_their_organization(sight: FirstSight, database: Database) -> None:
    made = (await sight.provision(ALONE, Profile("Alice", "alice@example.com"))).standing
    await sight.provision(ALONE, Profile("Alice", "alice@example.com"))
    slack, posthog = await rows(database)

    assert (slack["topic"], posthog["topic"]) == ("slack", "posthog")
    assert slack["key"] == posthog["key"] == f"user_created:{made.user.id}"
    assert slack["payload"]["email"] == "alice@example.com"
    assert posthog["payload"]["organizationId"] == made.organization.id
    assert posthog["stream"] == made.user.id


async def test_a_profile_clerk_did_not_tell_is_asked_for_later(sight: FirstSight, database: Database) -> None:
    await sight.provision(ALONE, Profile(), profile_unknown=True)
    await sight.provision(AT_ACME, Profile(), profile_unknown=True)

    assert (await kinds(database)).count(("profile", "sync")) == 1


async def test_a_known_user_who_gains_an_organization_is_announced_once(sight: FirstSight, database: Database) -> None:
    await sight.provision(ALONE, Profile("Alice"))
    await sight.provision(AT_ACME, Profile("Alice"))
    await sight.provision(AT_ACME, Profile("Alice"))
    await sight.provision(replace(AT_ACME, organization_role="member"), Profile("Alice"))

    assert await kinds(database) == [
        ("slack", "user_created"),
        ("posthog", "user_created"),
        ("posthog", "organization_joined"),
    ]
    assert (await rows(database))[2]["payload"]["properties"] == {"role": "org_admin"}


async def test_a_deleted_person_is_never_announced(sight: FirstSight, database: Database) -> None:
    await sight.provision(AT_ACME, Profile("Alice"))
    before = await kinds(database)
    await execute(database, "UPDATE users SET deleted_at = now()")
    await sight.provision(ALONE, Profile("Alice"))

    assert await kinds(database) == before


async def test_nobody_is_told_when_nobody_is_configured(database: Database) -> None:
    await FirstSight(database).provision(ALONE, Profile("Alice"))

    assert await rows(database) == []


async def test_many_first_requests_of_one_person_announce_them_once(sight: FirstSight, database: Database) -> None:
    subjects = [ALONE, AT_ACME] * 20
    await asyncio.gather(*(sight.provision(subject, Profile("Alice")) for subject in subjects))
    told = await kinds(database)

    assert sorted(told) == [("posthog", "organization_joined"), ("posthog", "user_created"), ("slack", "user_created")]


async def test_what_fails_leaves_neither_a_person_nor_a_promise(sight: FirstSight, database: Database) -> None:
    await execute(database, "ALTER TABLE audit_events RENAME TO elsewhere")
    with pytest.raises(Exception, match="audit_events"):
        await sight.provision(ALONE, Profile("Alice"))
    await execute(database, "ALTER TABLE elsewhere RENAME TO audit_events")

    assert (await rows(database), await count(database, "users")) == ([], 0)

    made = await sight.provision(ALONE, Profile("Alice"))

    assert made.created
    assert len(await rows(database)) == 2
    assert await actions(database, made.standing.organization.id) == ["user.created", "api_token.created"]
