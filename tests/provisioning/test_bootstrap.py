"""Who the settings make an administrator: with a fake of Clerk's Backend API at its wire, and a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.administration import Administration
from provisioning.arrivals import Arrivals
from provisioning.audit import GATEWAY_CHAIN, Origin
from provisioning.bootstrap import Bootstrap, folded
from provisioning.clerk_api import ClerkApi
from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.records import Role, Subject, User
from provisioning.users import Users
from tests.support.clerk_backend import SECRET_KEY, ClerkBackend
from tests.support.tokens import actions, execute, person
from tests.support.upstream import until

EMAIL = "alice@example.com"
ALICE = Subject("user_alice")
OPERATOR = Origin("operator", "root")


@dataclass
class Stage:
    """Arrivals that look for administrators."""

    arrivals: Arrivals
    clerk: ClerkBackend
    database: Database

    async def arrive(self, subject: Subject = ALICE) -> User:
        return (await self.arrivals.standing(subject)).user

    async def role(self, user: User) -> Role:
        found = await Users(self.database).get(user.id)
        assert found is not None
        return found.role

    async def becomes(self, user: User, role: Role) -> None:
        async with asyncio.timeout(10):
            while await self.role(user) is not role:  # noqa: ASYNC110 - PostgreSQL announces nothing
                await asyncio.sleep(0.01)

    async def asked(self, count: int) -> None:
        """Wait until Clerk was asked so often, and what it answered was acted on."""
        await until(lambda: len(self.clerk.asked) >= count)
        await asyncio.sleep(0.05)


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with (
        Database(database_url, acquire_timeout=60, statement_timeout=60) as database,
        aiohttp.ClientSession() as session,
        ClerkBackend().running() as clerk,
    ):
        api = ClerkApi(session, clerk.url, SECRET_KEY, deadline_s=5)
        bootstrap = Bootstrap(Administration(database), api, ["Alice@Example.com"], rest_s=0.01)
        arrivals = Arrivals(FirstSight(database), api, bootstrap=bootstrap)
        yield Stage(arrivals, clerk, database)
        await arrivals.close()


async def test_a_new_person_with_a_verified_address_is_an_administrator_at_once(stage: Stage) -> None:
    stage.clerk.add_user("user_alice")

    user = await stage.arrive()

    assert user.role is Role.ADMIN
    assert await stage.role(user) is Role.ADMIN
    assert await actions(stage.database, GATEWAY_CHAIN) == ["user.role_changed"]
    assert len(stage.clerk.asked) == 1  # the profile and the addresses are one question


async def test_an_address_that_is_not_the_primary_one_counts_too(stage: Stage) -> None:
    stage.clerk.add_user("user_bob", name=("Bob", "Ng"))
    stage.clerk.add_address("user_bob", "ALICE@example.COM", "verified")

    assert (await stage.arrive(Subject("user_bob", name="Bob", email="bob@example.com"))).role is Role.ADMIN


async def test_an_address_that_clerk_did_not_verify_is_worth_nothing(stage: Stage) -> None:
    stage.clerk.add_user("user_alice", verified=False)
    stage.clerk.add_address("user_alice", EMAIL, None)
    stage.clerk.add_address("user_alice", EMAIL, "expired")

    assert (await stage.arrive(Subject("user_alice", email=EMAIL))).role is Role.USER


async def test_an_address_in_a_token_is_worth_nothing(stage: Stage) -> None:
    stage.clerk.add_user("user_mallory", name=("Mallory", "Ng"))
    claims = Subject("user_mallory", name="Alice", email=EMAIL)

    user = await stage.arrive(claims)
    again = await stage.arrive(claims)
    await asyncio.sleep(0.05)

    assert (user.email, user.role, again.role) == (EMAIL, Role.USER, Role.USER)
    assert await stage.role(user) is Role.USER
    assert len(stage.clerk.asked) == 1


async def test_a_known_person_is_asked_about_once_beside_requests(stage: Stage) -> None:
    standing = await person(stage.database, ALICE)
    stage.clerk.add_user("user_alice")

    first = await stage.arrive(Subject("user_alice", name="Alice"))
    await stage.becomes(standing.user, Role.ADMIN)
    again = await stage.arrive(Subject("user_alice", name="Alice"))

    assert first.role is Role.USER  # nobody waits for Clerk here
    assert again.role is Role.ADMIN
    assert len(stage.clerk.asked) == 1


async def test_known_people_who_are_always_in_use_are_asked_about_too(stage: Stage) -> None:
    standing = await person(stage.database, ALICE)
    stage.clerk.add_user("user_alice")

    await stage.arrivals.standings([ALICE, Subject("user_nobody")])

    await stage.becomes(standing.user, Role.ADMIN)


async def test_known_people_nobody_names_are_asked_about_once(stage: Stage) -> None:
    stage.clerk.add_user("user_bob", name=("Bob", "Ng"))
    await person(stage.database, Subject("user_bob"))
    for _ in range(3):
        await stage.arrive(Subject("user_bob"))
    await stage.asked(1)
    await stage.arrive(Subject("user_bob"))
    await asyncio.sleep(0.05)

    assert len(stage.clerk.asked) == 1


async def test_who_seems_to_be_named_is_asked_about_before_others(stage: Stage) -> None:
    users = [(await person(stage.database, Subject(name))).user for name in ("user_a", "user_b", "user_alice")]
    users[-1] = replace(users[-1], email=EMAIL)
    assert stage.arrivals._bootstrap is not None
    for user in users:  # met in one moment
        stage.arrivals._bootstrap.consider(user)
    await stage.asked(1)

    assert stage.clerk.asked[0] == "/v1/users/user_alice"


@pytest.mark.parametrize("failure", ["failed", "rate_limited", "garbage", "reset"])
async def test_while_clerk_is_away_nobody_is_promoted_and_later_they_are(stage: Stage, failure: str) -> None:
    stage.clerk.add_user("user_alice")
    stage.clerk.failure, stage.clerk.retry_after = failure, "1"  # type: ignore[assignment]  # a word of its list

    user = await stage.arrive(Subject("user_alice", name="Alice", email=EMAIL))
    await stage.asked(1)
    before = await stage.role(user)
    stage.clerk.failure = None

    assert (user.role, before) == (Role.USER, Role.USER)
    await stage.becomes(user, Role.ADMIN)


async def test_who_was_demoted_by_hand_stays_so(stage: Stage) -> None:
    stage.clerk.add_user("user_alice")
    user = await stage.arrive()
    await Administration(stage.database).set_role(user.id, Role.USER, OPERATOR, by=None)
    bootstrap = Bootstrap(Administration(stage.database), stage.arrivals._clerk_api, [EMAIL])  # another process
    settled = await bootstrap.settle(user, await bootstrap.administers("user_alice"))

    assert settled == user
    assert await stage.role(user) is Role.USER


async def test_who_clerk_does_not_know_is_not_asked_about_for_ever(stage: Stage) -> None:
    await person(stage.database, Subject("user_gone"))
    await stage.arrive(Subject("user_gone"))
    await stage.asked(1)
    await asyncio.sleep(0.1)

    assert len(stage.clerk.asked) == 1


@pytest.mark.parametrize("column", ["disabled_at", "banned_at", "deleted_at"])
async def test_who_may_not_call_is_not_asked_about(stage: Stage, column: str) -> None:
    await person(stage.database, ALICE)
    await execute(stage.database, f"UPDATE users SET {column} = now()")
    await stage.arrive()
    await asyncio.sleep(0.05)

    assert stage.clerk.asked == []


@pytest.mark.parametrize("address", ["\u212aate@example.com", "KATE@EXAMPLE.COM ", "kate@example.com"])
def test_letters_of_other_alphabets_do_not_become_latin_ones(address: str) -> None:
    assert (folded(address) == "kate@example.com") is address.isascii()


@given(st.text())
def test_folding_touches_ascii_letters_alone(text: str) -> None:
    there = folded(text)

    assert folded(there) == there
    assert [letter for letter in there if not letter.isascii()] == [
        letter for letter in text.strip() if not letter.isascii()
    ]
