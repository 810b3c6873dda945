"""What webhooks write, event by event; orders are tried in `test_event_orders.py`."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count as numbers
from typing import Any

import pytest

from provisioning.clerk_events import ClerkEvent, parse_event
from provisioning.clerk_facts import Changed, ClerkFacts, Outcome
from provisioning.database.pool import Database
from provisioning.errors import MembershipEnded
from provisioning.first_sight import FirstSight
from provisioning.memberships import Memberships
from provisioning.new_tokens import FirstToken
from provisioning.organizations import Organizations
from provisioning.profile import Profile
from provisioning.records import Standing, Subject, User
from provisioning.users import Users
from tests.support.clerk_webhooks import envelope, membership, organization, user
from tests.support.tokens import RULES, SEALER, actions, count, events, execute

T = 1_700_000_000_000  # milliseconds
ALICE, ACME = "user_alice", "org_acme"
_ids = numbers()


def event(kind: str, data: Any, at_ms: int = T) -> ClerkEvent:
    return parse_event(json.dumps(envelope(kind, data, at_ms=at_ms)).encode(), 0.0)


class Records:
    """First sight and webhooks over one database."""

    def __init__(self, database: Database, *, links: bool = False) -> None:
        self.database = database
        self.facts = ClerkFacts(database, link_verified_email=links)
        self.sight = FirstSight(database, first_token=FirstToken(SEALER, RULES), link_verified_email=links)

    async def told(self, kind: str, data: Any, at_ms: int = T) -> Outcome:
        return await self.facts.receive(f"msg_{next(_ids)}", event(kind, data, at_ms))

    async def person(self, at_ms: int = T, **members: Any) -> Outcome:
        return await self.told("user.updated", user(ALICE, at_ms, **members))

    async def joins(self, at_ms: int, role: str = "org:member") -> Outcome:
        return await self.told("organizationMembership.updated", membership(ALICE, ACME, at_ms, role))

    async def leaves(self, at_ms: int) -> Outcome:
        return await self.told("organizationMembership.deleted", membership(ALICE, ACME, T), at_ms)

    async def comes(self, at_ms: int | None = None, role: str = "member", place: str | None = ACME) -> Standing:
        issued_at = at_ms / 1000 if at_ms is not None else None
        subject = Subject(ALICE, place, None, role, issued_at=issued_at)
        found = await self.sight.find(ALICE, place)
        return found or (await self.sight.provision(subject, Profile())).standing

    async def row(self) -> User:
        found = await Users(self.database).named(ALICE)
        assert found is not None
        return found

    async def roles(self) -> list[str]:
        async with self.database.connection() as connection:
            rows = await connection.fetch("SELECT role FROM memberships ORDER BY role")
        return [row["role"] for row in rows]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


@pytest.fixture
def records(database: Database) -> Records:
    return Records(database)


async def test_person_is_known_before_their_first_request_and_welcomed_by_it(records: Records) -> None:
    outcome = await records.person(email="a@example.com")
    assert await records.sight.find(ALICE, None) is None
    told = await records.row()

    standing = await records.comes(place=None)

    assert outcome == Outcome("applied", (Changed(told.id, ALICE),))
    assert (standing.user.id, standing.user.name, standing.user.email) == (told.id, "Alice Ng", "a@example.com")
    assert await actions(records.database, standing.organization.id) == ["user.created", "api_token.created"]
    assert await count(records.database, "api_tokens") == 1


async def test_webhook_after_the_first_request_adds_nothing_but_the_profile(records: Records) -> None:
    standing = await records.comes(place=None)

    await records.person(email="a@example.com")

    assert (await records.row()).name == "Alice Ng"
    assert await actions(records.database, standing.organization.id) == ["user.created", "api_token.created"]


async def test_event_that_tells_nothing_new_leaves_what_is_remembered_alone(records: Records) -> None:
    for banned in (False, True):
        await records.person(T + 10 * banned, banned=banned)
        before = await records.row()

        outcome = await records.person(T + 5 + 10 * banned, banned=banned)

        assert (outcome.word, outcome.changed) == ("applied", ())
        assert await records.row() == before


async def test_older_event_about_a_person_changes_nothing(records: Records) -> None:
    await records.person(T + 10, first_name="New")

    assert await records.person(T, first_name="Old") == Outcome("outdated")
    assert (await records.row()).name == "New Ng"


async def test_address_that_clerk_takes_back_goes_and_a_claimed_one_stays(records: Records) -> None:
    await records.person(T, email="a@example.com")
    await records.person(T + 1, email=None)
    assert (await records.row()).email is None

    await execute(records.database, "UPDATE users SET email = 'claimed@example.com'")
    await records.person(T + 2, email=None)

    assert (await records.row()).email == "claimed@example.com"


async def test_the_same_delivery_has_its_effect_once(records: Records) -> None:
    one = event("user.created", user(ALICE, T))

    words = [(await records.facts.receive("msg_same", one)).word for _ in range(3)]

    assert words == ["applied", "duplicate", "duplicate"]


async def test_banned_person_is_marked_apart_from_an_operators_disabling(records: Records) -> None:
    standing = await records.comes(place=None)
    await execute(records.database, "UPDATE users SET disabled_at = now()")

    banned = await records.person(T, banned=True)
    assert (await records.row()).banned_at is not None
    await records.person(T + 1, banned=False)

    row = await records.row()
    assert banned.changed == (Changed(row.id, ALICE, closes=True),)
    assert (row.banned_at, row.disabled_at is not None) == (None, True)
    assert (await actions(records.database, standing.organization.id))[-2:] == ["user.banned", "user.unbanned"]


async def test_deleted_person_leaves_a_tombstone_without_a_word_about_them(records: Records) -> None:
    await records.joins(T)
    standing = await records.comes(T + 5)
    await execute(records.database, """UPDATE users SET settings = '{"theme": "dark"}'""")

    outcome = await records.told("user.deleted", {"object": "user", "id": ALICE, "deleted": True})

    row = await records.row()
    assert outcome.changed == (Changed(row.id, ALICE, closes=True),)
    assert (row.name, row.email, row.settings) == (None, None, {})
    assert row.deleted_at is not None
    assert await records.roles() == []
    assert await count(records.database, "api_tokens WHERE sealed_secret IS NOT NULL") == 0
    assert (await actions(records.database, standing.organization.id))[-1] == "user.deleted"


async def test_organization_of_a_deleted_persons_own_does_not_keep_their_name(records: Records) -> None:
    await records.person(email="a@example.com")
    standing = await records.comes(place=None)

    await records.told("user.deleted", {"object": "user", "id": ALICE, "deleted": True})

    assert standing.organization.name == "Alice Ng"
    assert await count(records.database, "organizations WHERE name = 'Personal'") == 1


async def test_tombstone_stands_before_and_after_everything_else(records: Records) -> None:
    await records.told("user.deleted", {"object": "user", "id": ALICE, "deleted": True}, T)

    later = [await records.person(T + 10), await records.joins(T + 20)]
    standing = await records.comes(T + 30_000)

    assert later == [Outcome("outdated")] * 2
    assert standing.user.deleted_at is not None
    assert await records.roles() == []
    assert await count(records.database, "organizations") == 0
    assert await actions(records.database, "gateway") == ["user.deleted"]


async def test_membership_makes_person_and_organization_known(records: Records) -> None:
    await records.joins(T, "org:billing_admin")
    assert await records.sight.find(ALICE, ACME) is None

    standing = await records.comes(T + 1000, "billing_admin")

    assert (standing.user.name, standing.organization.name) == ("Alice Ng", "Acme Inc.")
    assert await records.roles() == ["billing_admin"]
    listed = await Memberships(records.database).of_user(standing.user.id)
    assert [one.organization.clerk_id for one in listed] == [ACME]
    assert await actions(records.database, standing.organization.id) == [
        "membership.created",
        "user.created",
        "api_token.created",
    ]


async def test_role_of_a_membership_follows_the_latest_event(records: Records) -> None:
    await records.joins(T + 10, "org:admin")
    outdated = await records.joins(T, "org:member")
    changed = await records.joins(T + 20, "org:member")
    again = await records.joins(T + 30, "org:member")

    assert outdated.word == "outdated"
    assert [one.closes for one in changed.changed] == [True]
    assert again == Outcome("applied")
    assert await records.roles() == ["member"]


async def test_token_older_than_what_clerk_told_of_a_role_counts_with_the_later_one(records: Records) -> None:
    await records.joins(T, "org:admin")
    await records.comes(T + 1000, "admin")
    await records.joins(T + 5000, "org:member")

    old = Subject(ALICE, ACME, None, "admin", issued_at=T / 1000 + 3)
    answered = await records.sight.provision(old, Profile())

    assert answered.standing.organization_role == "member"
    assert answered.standing.outdates("admin", T / 1000 + 3)
    assert not answered.standing.outdates("admin", T / 1000 + 5)
    assert await records.roles() == ["member"]


async def test_row_does_not_follow_an_event_older_than_a_token(records: Records) -> None:
    await records.comes(T + 5000, "admin")

    assert await records.joins(T, "org:member") == Outcome("outdated")
    assert await records.roles() == ["admin"]


async def test_who_left_is_out_and_comes_back_with_a_later_event(records: Records) -> None:
    await records.joins(T)
    standing = await records.comes(T + 1000)

    left = await records.leaves(T + 5000)
    late = await records.joins(T + 3000)
    assert await records.roles() == []
    back = await records.joins(T + 9000)

    ids = standing.user.id, ALICE, standing.organization.id
    assert left == Outcome("applied", (Changed(*ids, closes=True),))
    assert (late.word, back.word) == ("outdated", "applied")
    assert await records.roles() == ["member"]


async def test_leaving_that_is_told_after_the_return_changes_nothing(records: Records) -> None:
    await records.joins(T)
    await records.joins(T + 9000, "org:admin")

    assert await records.leaves(T + 5000) == Outcome("outdated")
    assert await records.roles() == ["admin"]

    await records.leaves(T + 10_000)
    await records.comes(T + 12_000)

    assert await records.leaves(T + 11_000) == Outcome("outdated")
    assert await records.roles() == ["member"]


async def test_token_of_before_does_not_bring_a_membership_back_and_one_of_after_does(records: Records) -> None:
    await records.joins(T)
    standing = await records.comes(T + 1000)
    await records.leaves(T + 5000)

    for issued_ms in (T + 4000, T + 5000, None):
        with pytest.raises(MembershipEnded) as ended:
            await records.comes(issued_ms)
        assert ended.value.reason == "organization_left"
        assert (ended.value.user_id, ended.value.organization_id) == (standing.user.id, standing.organization.id)
    assert await records.roles() == []

    await records.comes(T + 6000, "admin")
    assert await records.roles() == ["admin"]
    assert await records.joins(T + 2000) == Outcome("outdated")


async def test_older_token_is_let_in_where_its_person_is_a_member_again(records: Records) -> None:
    await records.joins(T)
    await records.leaves(T + 5000)
    await records.comes(T + 9000)

    answered = await records.sight.provision(Subject(ALICE, ACME, None, "admin", issued_at=T / 1000), Profile())

    assert answered.standing.organization_role == "member"
    assert await records.roles() == ["member"]


async def test_leaving_before_anything_is_known_of_it_counts(records: Records) -> None:
    assert await records.leaves(T + 5000) == Outcome("outdated")
    assert (await records.joins(T)).word == "outdated"

    with pytest.raises(MembershipEnded):
        await records.comes(T + 1000)

    assert await count(records.database, "users") == 0


async def test_deleted_organization_has_nobody_and_comes_back_by_nothing(records: Records) -> None:
    await records.joins(T)
    standing = await records.comes(T + 1000)
    gone = {"object": "organization", "id": ACME, "slug": "acme", "deleted": True}

    outcome = await records.told("organization.deleted", gone, T + 5000)
    later = [
        await records.told("organization.updated", organization(ACME, T + 9000, name="Again")),
        await records.joins(T + 9000),
        await records.told("organization.deleted", gone, T + 9000),
    ]

    ids = standing.user.id, ALICE, standing.organization.id
    assert outcome == Outcome("applied", (Changed(*ids, closes=True),))
    assert later == [Outcome("outdated")] * 3
    assert await records.roles() == []
    with pytest.raises(MembershipEnded, match="organization_deleted"):
        await records.comes(T + 10_000)
    last = (await events(records.database, standing.organization.id))[-1]
    assert (last["action"], last["metadata"], last["address"]) == (
        "organization.deleted",
        {"members": 1},
        "198.51.100.7",
    )


async def test_who_is_just_coming_into_an_organization_does_not_outlast_it(records: Records) -> None:
    await records.told("organization.created", organization(ACME, T))
    await records.person()
    gone = {"object": "organization", "id": ACME, "deleted": True}
    async with records.database.transaction() as connection:
        await connection.execute(
            "INSERT INTO memberships SELECT u.id, o.id, 'member' FROM users u, organizations o WHERE o.clerk_id = $1",
            ACME,
        )
        deletion = asyncio.create_task(records.told("organization.deleted", gone))
        waiting = 0
        while not waiting and not deletion.done():
            waiting = await count(records.database, "pg_stat_activity WHERE wait_event_type = 'Lock'")

    assert [one.clerk_user_id for one in (await deletion).changed] == [ALICE]
    assert await records.roles() == []


async def test_who_comes_while_an_organization_is_being_deleted_is_too_late(records: Records) -> None:
    await records.told("organization.created", organization(ACME, T))
    async with records.database.transaction() as connection:
        await connection.execute("SELECT FROM organizations FOR UPDATE")
        await connection.execute("UPDATE organizations SET deleted_at = now()")
        coming = asyncio.create_task(records.comes(T + 1000))
        waiting = 0
        while not waiting and not coming.done():
            waiting = await count(records.database, "pg_stat_activity WHERE wait_event_type = 'Lock'")

    with pytest.raises(MembershipEnded, match="organization_deleted"):
        await coming
    assert await records.roles() == []


async def test_organization_follows_the_latest_name(records: Records) -> None:
    standing = await records.comes(T)
    words = [
        (await records.told("organization.updated", organization(ACME, T + 10, name="New"))).word,
        (await records.told("organization.created", organization(ACME, T, name="Old"))).word,
    ]

    found = await Organizations(records.database).get(standing.organization.id)
    assert words == ["applied", "outdated"]
    assert found is not None
    assert found.name == "New"


async def test_person_with_the_same_verified_address_is_another_one_unless_linking_is_on(records: Records) -> None:
    await records.told("user.created", user("user_before", T, email="same@example.com"))
    await records.person(email="SAME@example.com")

    assert await count(records.database, "users") == 2


@pytest.mark.parametrize("by_webhook", [True, False])
async def test_new_account_with_the_same_verified_address_gets_the_row(database: Database, by_webhook: bool) -> None:
    records = Records(database, links=True)
    await records.told("user.created", user("user_before", T + 99, email="same@example.com"))
    before = (await records.sight.provision(Subject("user_before"), Profile())).standing
    profile = Profile("Alice", "Same@example.com", "Same@example.com")

    if by_webhook:
        outcome = await records.person(email="Same@example.com")
        assert [one.clerk_user_id for one in outcome.changed] == [ALICE, "user_before"]
    else:
        assert not (await records.sight.provision(Subject(ALICE), profile)).created
    again = await records.sight.find(ALICE, None)

    assert again is not None
    assert (again.user.id, again.organization) == (before.user.id, before.organization)
    assert await count(database, "users") == 1
    linked = (await events(database, before.organization.id))[-1]
    assert linked["action"] == "user.linked"
    assert linked["metadata"] == {"clerkId": ALICE, "clerkIdBefore": "user_before"}


@pytest.mark.parametrize(
    "obstacle",
    [
        "UPDATE users SET deleted_at = now()",
        "UPDATE users SET verified_email = NULL",
        "INSERT INTO users (id, clerk_id, verified_email) VALUES ('usr_x', 'user_x', 'same@example.com')",
    ],
)
async def test_nobody_gets_a_row_that_may_be_somebody_elses(database: Database, obstacle: str) -> None:
    records = Records(database, links=True)
    await records.told("user.created", user("user_before", T, email="same@example.com"))
    await execute(database, obstacle)
    rows = await count(database, "users")

    made = await records.sight.provision(Subject(ALICE), Profile("A", "same@example.com", "same@example.com"))

    assert made.created
    assert await count(database, "users") == rows + 1


async def test_claimed_address_links_nobody(database: Database) -> None:
    records = Records(database, links=True)
    await records.told("user.created", user("user_before", T, email="same@example.com"))
    subject = Subject(ALICE, email="same@example.com")

    await records.sight.provision(subject, Profile("Alice", "same@example.com"))

    assert await count(database, "users") == 2


async def test_disabled_person_stays_so_under_a_new_account(database: Database) -> None:
    records = Records(database, links=True)
    await records.told("user.created", user("user_before", T, email="same@example.com", banned=True))
    await execute(database, "UPDATE users SET disabled_at = now()")

    made = await records.sight.provision(Subject(ALICE), Profile("A", "same@example.com", "same@example.com"))

    assert made.standing.user.disabled_at is not None
    assert made.standing.user.banned_at is not None


async def test_event_about_an_account_whose_person_is_being_linked_to_another_makes_a_new_one(records: Records) -> None:
    await records.person()
    async with records.database.transaction() as linking:
        await linking.execute("SELECT FROM users WHERE clerk_id = $1 FOR UPDATE", ALICE)
        told = asyncio.create_task(records.joins(T + 1))
        waiting = 0
        while not waiting:
            waiting = await count(records.database, "pg_stat_activity WHERE wait_event_type = 'Lock'")
        await linking.execute("UPDATE users SET clerk_id = 'user_after' WHERE clerk_id = $1", ALICE)
    outcome = await told

    assert outcome.word == "applied"
    assert await records.roles() == ["member"]
    assert await count(records.database, "users") == 2
