"""Provisioning a known person again."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from provisioning.audit import GATEWAY_CHAIN, Origin
from provisioning.database.pool import Database
from provisioning.errors import UserEnded, UserMissing
from provisioning.first_sight import FirstSight
from provisioning.new_tokens import FirstToken
from provisioning.records import Subject
from provisioning.repair import repair
from tests.support.tokens import RULES, SEALER, actions, count, events, execute, person

BOSS = Origin("user", "usr_of_boss")
ALL_FOUND = {"user": "found", "organization": "found", "membership": "found", "apiToken": "found", "trial": "off"}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


@pytest.fixture
def sight(database: Database) -> FirstSight:
    return FirstSight(database, first_token=FirstToken(SEALER, RULES))


async def test_who_lacks_nothing_gets_nothing(database: Database, sight: FirstSight) -> None:
    standing = await person(database, first_token=True)
    before = await actions(database, standing.organization.id)

    repaired = await repair(sight, standing.user.id, BOSS)

    assert (repaired.steps, repaired.organization_id) == (ALL_FOUND, standing.organization.id)
    assert await actions(database, standing.organization.id) == before
    assert [event["actor_id"] for event in await events(database, GATEWAY_CHAIN)] == ["usr_of_boss"]


async def test_what_is_missing_is_made_once(database: Database, sight: FirstSight) -> None:
    standing = await person(database, Subject("user_alice", "org_acme"))  # no organization of their own, no token

    first = await repair(sight, standing.user.id, BOSS)
    second = await repair(sight, standing.user.id, BOSS)

    assert first.steps == ALL_FOUND | {"organization": "made", "membership": "made", "apiToken": "made"}
    assert second.steps == ALL_FOUND
    assert first.organization_id == second.organization_id != standing.organization.id
    assert await count(database, "api_tokens WHERE sealed_secret IS NOT NULL") == 1
    assert await actions(database, first.organization_id or "") == ["api_token.created"]
    assert await actions(database, GATEWAY_CHAIN) == ["user.repaired", "user.repaired"]


async def test_a_lost_membership_comes_back(database: Database, sight: FirstSight) -> None:
    standing = await person(database, first_token=True)
    await execute(database, "DELETE FROM memberships")

    repaired = await repair(sight, standing.user.id, BOSS)

    assert repaired.steps == ALL_FOUND | {"membership": "made"}
    assert await sight.find("user_alice", None) == standing


async def test_many_repairs_at_once_make_one_of_each(database: Database, sight: FirstSight) -> None:
    standing = await person(database, Subject("user_alice", "org_acme"))

    repairs = await asyncio.gather(*(repair(sight, standing.user.id, BOSS) for _ in range(8)))

    assert sum("made" in repaired.steps.values() for repaired in repairs) == 1
    assert await count(database, "organizations WHERE personal_owner_id IS NOT NULL") == 1
    assert await count(database, "api_tokens") == 1


async def test_what_the_settings_switch_off_is_not_made(database: Database) -> None:
    standing = await person(database, Subject("user_alice", "org_acme"))
    sight = FirstSight(database, personal_organizations=False, first_token=FirstToken(SEALER, RULES))

    repaired = await repair(sight, standing.user.id, BOSS)

    assert repaired.organization_id is None
    assert repaired.steps == {
        "user": "found",
        "organization": "off",
        "membership": "off",
        "apiToken": "off",
        "trial": "off",
    }


async def test_nobody_and_a_tombstone_are_not_repaired(database: Database, sight: FirstSight) -> None:
    standing = await person(database)
    await execute(database, "UPDATE users SET deleted_at = now()")

    with pytest.raises(UserEnded):
        await repair(sight, standing.user.id, BOSS)
    with pytest.raises(UserMissing):
        await repair(sight, "usr_0000000000000000000000", BOSS)
