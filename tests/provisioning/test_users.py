import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.database.pool import Database
from provisioning.errors import SettingsInvalid, SettingsTooLarge, UserMissing
from provisioning.first_sight import FirstSight
from provisioning.memberships import Memberships
from provisioning.organizations import Organizations
from provisioning.profile import Profile
from provisioning.records import Subject, User
from provisioning.users import SETTINGS_BYTES, Users
from tests.support.postgres import PostgresPerWorker


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


@pytest.fixture
def users(database: Database) -> Users:
    return Users(database)


@pytest.fixture
async def alice(database: Database) -> User:
    return (await FirstSight(database).provision(Subject("user_alice"), Profile("Alice"))).standing.user


async def test_a_user_is_read_by_id(users: Users, alice: User) -> None:
    assert await users.get(alice.id) == alice
    assert await users.get("usr_nobody") is None


async def test_settings_merge_on_the_first_level_and_null_deletes(users: Users, alice: User) -> None:
    await users.merge_settings(alice.id, {"theme": "dark", "editor": {"tabs": 2, "wrap": True}, "old": 1})
    user = await users.merge_settings(alice.id, {"editor": {"tabs": 4}, "old": None, "absent": None})

    assert user.settings == {"theme": "dark", "editor": {"tabs": 4}}
    assert user.updated_at > alice.updated_at


async def test_concurrent_merges_lose_nothing(users: Users, alice: User) -> None:
    await asyncio.gather(*(users.merge_settings(alice.id, {f"key{number}": number}) for number in range(50)))
    user = await users.get(alice.id)

    assert user is not None
    assert user.settings == {f"key{number}": number for number in range(50)}


async def test_settings_stay_within_their_size(users: Users, alice: User) -> None:
    await users.merge_settings(alice.id, {"a": "x" * (SETTINGS_BYTES // 2)})

    with pytest.raises(SettingsTooLarge):
        await users.merge_settings(alice.id, {"b": "y" * (SETTINGS_BYTES // 2)})
    with pytest.raises(SettingsTooLarge):
        await users.merge_settings(alice.id, {"b": "y" * (SETTINGS_BYTES * 2)})


@pytest.mark.parametrize("patch", [{"a": "\0"}, {"\0": 1}, {"a": "\ud800"}, {"a": 2**70}, {"\ud800": None}])
async def test_what_json_in_postgresql_cannot_hold_is_refused(users: Users, alice: User, patch: dict[str, Any]) -> None:
    with pytest.raises(SettingsInvalid):
        await users.merge_settings(alice.id, patch)


async def test_settings_of_nobody_cannot_be_merged(users: Users) -> None:
    with pytest.raises(UserMissing):
        await users.merge_settings("usr_nobody", {"a": 1})


async def test_settings_of_a_tombstone_cannot_be_merged(users: Users, alice: User, database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("UPDATE users SET deleted_at = now()")

    with pytest.raises(UserMissing):
        await users.merge_settings(alice.id, {"a": 1})


async def test_organizations_of_a_user_are_listed_with_the_personal_one_first(database: Database) -> None:
    sight, memberships = FirstSight(database), Memberships(database)
    for organization in ("org_b", None, "org_a"):
        made = await sight.provision(Subject("user_alice", organization), Profile("Alice"))
    await sight.provision(Subject("user_bob", "org_c"), Profile())

    standings = await memberships.of_user(made.standing.user.id)

    assert [standing.organization.clerk_id for standing in standings] == [None, "org_b", "org_a"]
    assert await memberships.of_user("usr_nobody") == ()


async def test_an_organization_is_read_by_our_id(database: Database) -> None:
    made = await FirstSight(database).provision(Subject("user_alice", "org_acme"), Profile())
    organizations = Organizations(database)

    assert await organizations.get(made.standing.organization.id) == made.standing.organization
    assert await organizations.get("org_acme") is None


plain_values = (
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(st.characters(exclude_categories=["Cs"]))
)
patches = st.lists(
    st.dictionaries(st.sampled_from("abcd"), plain_values.filter(lambda value: "\0" not in str(value))), max_size=4
)


def test_merging_agrees_with_a_dictionary(postgres: PostgresPerWorker, database_url: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(patches)
    def agrees(sequence: list[dict[str, Any]]) -> None:
        asyncio.run(check(sequence))

    async def check(sequence: list[dict[str, Any]]) -> None:
        expected: dict[str, Any] = {}
        async with Database(database_url, acquire_timeout=60, statement_timeout=60) as database:
            made = await FirstSight(database).provision(Subject("user_alice"), Profile())
            users = Users(database)
            user = await users.merge_settings(made.standing.user.id, dict.fromkeys("abcd"))
            for patch in sequence:
                expected.update(patch)
                user = await users.merge_settings(user.id, patch)

        assert user.settings == {key: value for key, value in expected.items() if value is not None}

    agrees()
