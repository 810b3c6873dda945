from collections.abc import AsyncIterator

import pytest

from provisioning.database.pool import Database
from provisioning.memberships import Memberships
from provisioning.organizations import Organizations
from provisioning.pages import Place
from provisioning.records import Standing, Subject
from tests.support.tokens import execute, person


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url) as opened:
        yield opened


async def members(database: Database, count: int, organization: str = "org_acme") -> list[Standing]:
    return [
        await person(database, Subject(f"user_{organization}_{number}", organization, organization_role="member"))
        for number in range(count)
    ]


async def test_pages_hold_every_member_of_one_organization_once(database: Database) -> None:
    made = await members(database, 5)
    await members(database, 3, "org_other")
    await execute(database, "UPDATE memberships SET created_at = now()")  # a moment shared by all: ids decide
    seen, after = [], None
    for _ in range(3):
        page = await Memberships(database).of_organization(made[0].organization.id, after, 2)
        seen += [member.user_id for member in page.items]
        after = page.last

    assert after is None
    assert seen == sorted(standing.user.id for standing in made)


async def test_the_oldest_membership_is_first_and_tombstones_are_left_out(database: Database) -> None:
    made = await members(database, 3)
    await execute(database, "UPDATE users SET deleted_at = now() WHERE id = $1", made[1].user.id)

    page = await Memberships(database).of_organization(made[0].organization.id, None, 10)

    assert [member.user_id for member in page.items] == [made[0].user.id, made[2].user.id]
    assert [(member.name, member.role, member.email) for member in page.items] == [("Alice", "member", None)] * 2


async def test_a_place_of_another_list_leads_no_further_than_the_organization(database: Database) -> None:
    ours, theirs = await members(database, 2), await members(database, 2, "org_other")
    page = await Memberships(database).of_organization(ours[0].organization.id, None, 1)
    place = page.last

    other = await Memberships(database).of_organization(theirs[0].organization.id, place, 10)

    assert isinstance(place, Place)
    assert [member.user_id for member in other.items] == [standing.user.id for standing in theirs]


async def test_an_organization_is_named_by_either_id_and_never_by_its_slug(database: Database) -> None:
    standing = await person(database, Subject("user_alice", "org_acme", organization_slug="acme"))
    organizations, organization = Organizations(database), standing.organization

    assert await organizations.named(organization.id) == organization
    assert await organizations.named("org_acme") == organization
    assert await organizations.named("acme") is None
