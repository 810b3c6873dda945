"""Roles and disabling, over a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from provisioning.administration import Administration
from provisioning.audit import GATEWAY_CHAIN, Origin
from provisioning.database.pool import Database
from provisioning.errors import NoAdministrator, OwnAccount, ProvisioningError, UserEnded, UserMissing
from provisioning.pages import Place
from provisioning.records import Role, Subject, User
from provisioning.users import Users
from tests.support.tokens import events, execute, person

OPERATOR = Origin("operator", "root")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


@pytest.fixture
def administration(database: Database) -> Administration:
    return Administration(database)


async def user(database: Database, name: str, *, role: Role = Role.USER) -> User:
    made = (await person(database, Subject(f"user_{name}"))).user
    return await Administration(database).set_role(made.id, role, OPERATOR, by=None) if role is Role.ADMIN else made


async def told(database: Database) -> list[tuple[str, dict[str, object]]]:
    return [(event["action"], event["metadata"]) for event in await events(database, GATEWAY_CHAIN)]


async def test_a_role_is_given_and_on_record(database: Database, administration: Administration) -> None:
    alice = await user(database, "alice")

    changed = await administration.set_role(alice.id, Role.ADMIN, OPERATOR, by=None)

    assert changed.role is Role.ADMIN
    assert changed.updated_at > alice.updated_at
    assert await Users(database).get(alice.id) == changed
    assert await told(database) == [("user.role_changed", {"before": "USER", "after": "ADMIN"})]


async def test_what_is_so_already_changes_nothing(database: Database, administration: Administration) -> None:
    alice = await user(database, "alice", role=Role.ADMIN)
    before = await told(database)

    assert await administration.set_role(alice.id, Role.ADMIN, OPERATOR, by=None) == alice
    assert await administration.enable(alice.id, OPERATOR, by=None) == alice
    disabled = await administration.disable(alice.id, OPERATOR, by=None)
    assert await administration.disable(alice.id, OPERATOR, by=None) == disabled
    assert await told(database) == [*before, ("user.disabled", {})]


async def test_disabling_and_enabling_are_on_record(database: Database, administration: Administration) -> None:
    alice = await user(database, "alice")

    disabled = await administration.disable(alice.id, OPERATOR, by=None)
    enabled = await administration.enable(alice.id, OPERATOR, by=None)

    assert disabled.disabled_at is not None
    assert enabled.disabled_at is None
    assert await told(database) == [("user.disabled", {}), ("user.enabled", {})]


async def test_the_settings_promote_a_user_once(database: Database, administration: Administration) -> None:
    alice = await user(database, "alice")

    first, second = await administration.promote(alice.id), await administration.promote(alice.id)

    assert first is not None
    assert first.role is Role.ADMIN
    assert second is None
    facts = {"before": "USER", "after": "ADMIN", "cause": "bootstrap.admin_emails"}
    assert await told(database) == [("user.role_changed", facts)]


async def test_the_settings_promote_nobody_whose_role_was_set_by_hand(
    database: Database, administration: Administration
) -> None:
    alice = await user(database, "alice")
    await administration.promote(alice.id)
    await administration.set_role(alice.id, Role.USER, OPERATOR, by=None)
    bob = await user(database, "bob")
    await administration.set_role(bob.id, Role.USER, OPERATOR, by=None)  # as it was, and settled

    assert await administration.promote(alice.id) is None
    assert await administration.promote(bob.id) is None


@pytest.mark.parametrize("column", ["disabled_at", "banned_at", "deleted_at"])
async def test_the_settings_promote_nobody_who_may_not_call(
    database: Database, administration: Administration, column: str
) -> None:
    alice = await user(database, "alice")
    await execute(database, f"UPDATE users SET {column} = now()")

    assert await administration.promote(alice.id) is None


async def test_nobody_takes_their_own_rights(database: Database, administration: Administration) -> None:
    alice = await user(database, "alice", role=Role.ADMIN)
    await user(database, "bob", role=Role.ADMIN)

    with pytest.raises(OwnAccount):
        await administration.set_role(alice.id, Role.USER, OPERATOR, by=alice.id)
    with pytest.raises(OwnAccount):
        await administration.disable(alice.id, OPERATOR, by=alice.id)
    assert (await administration.set_role(alice.id, Role.ADMIN, OPERATOR, by=alice.id)).role is Role.ADMIN


async def test_of_administrators_who_demote_each_other_at_once_one_stays(
    database: Database, administration: Administration
) -> None:
    everybody = [await user(database, f"number{number}", role=Role.ADMIN) for number in range(6)]

    async def demote(by: User, other: User) -> ProvisioningError | None:
        try:
            await administration.set_role(other.id, Role.USER, OPERATOR, by=by.id)
        except ProvisioningError as error:
            return error
        return None

    pairs = [(by, other) for by in everybody for other in everybody if by is not other]
    outcomes = await asyncio.gather(*(demote(*pair) for pair in pairs))

    async with database.connection() as connection:
        left = await connection.fetchval("SELECT count(*) FROM users WHERE role = 'ADMIN'")
    assert left == 1
    assert sum(outcome is None for outcome in outcomes) >= len(everybody) - 1
    assert {type(outcome) for outcome in outcomes if outcome is not None} == {NoAdministrator}


@pytest.mark.parametrize("rights", ["role = 'USER'", "disabled_at = now()", "banned_at = now()", "deleted_at = now()"])
async def test_who_administers_no_more_changes_nothing(
    database: Database, administration: Administration, rights: str
) -> None:
    alice, bob = await user(database, "alice", role=Role.ADMIN), await user(database, "bob")
    await execute(database, f"UPDATE users SET {rights} WHERE id = $1", alice.id)
    before = await told(database)

    for attempt in (
        administration.set_role(bob.id, Role.ADMIN, OPERATOR, by=alice.id),
        administration.set_role(alice.id, Role.ADMIN, OPERATOR, by=alice.id),
        administration.disable(bob.id, OPERATOR, by=alice.id),
        administration.enable(bob.id, OPERATOR, by=alice.id),
    ):
        with pytest.raises(NoAdministrator):
            await attempt
    assert await Users(database).get(bob.id) == bob
    assert await told(database) == before


async def test_an_operator_may_demote_the_last_one(database: Database, administration: Administration) -> None:
    alice = await user(database, "alice", role=Role.ADMIN)

    assert (await administration.set_role(alice.id, Role.USER, OPERATOR, by=None)).role is Role.USER


@pytest.mark.parametrize("user_id", ["usr_0000000000000000000000", "user_alice", "usr_nobody", "\0"])
async def test_nobody_cannot_be_changed(administration: Administration, user_id: str) -> None:
    with pytest.raises(UserMissing):
        await administration.set_role(user_id, Role.ADMIN, OPERATOR, by=None)
    with pytest.raises(UserMissing):
        await administration.disable(user_id, OPERATOR, by=None)
    with pytest.raises(UserMissing):
        await administration.enable(user_id, OPERATOR, by=None)


async def test_a_tombstone_cannot_be_changed(database: Database, administration: Administration) -> None:
    alice = await user(database, "alice")
    await execute(database, "UPDATE users SET deleted_at = now()")

    with pytest.raises(UserEnded):
        await administration.set_role(alice.id, Role.ADMIN, OPERATOR, by=None)
    with pytest.raises(UserEnded):
        await administration.disable(alice.id, OPERATOR, by=None)
    with pytest.raises(UserEnded):
        await administration.enable(alice.id, OPERATOR, by=None)


async def test_system_is_nobodys_role(administration: Administration) -> None:
    with pytest.raises(ValueError, match="SYSTEM"):
        await administration.set_role("usr_0000000000000000000000", Role.SYSTEM, OPERATOR, by=None)


async def test_pages_hold_everybody_once_whoever_comes_meanwhile(
    database: Database, administration: Administration
) -> None:
    people = [await user(database, f"number{number}") for number in range(5)]
    await execute(database, "UPDATE users SET created_at = now()")  # a moment shared by all: ids decide
    seen: list[str] = []
    after: Place | None = None
    for number in range(3):
        page = await administration.list_of(None, after, 2)
        seen += [one.id for one in page.items]
        after = page.last
        await user(database, f"late{number}")

    assert after is None
    assert sorted(seen) == sorted(one.id for one in people)


async def test_who_came_last_is_first(database: Database, administration: Administration) -> None:
    people = [await user(database, f"number{number}") for number in range(3)]

    page = await administration.list_of(None, None, 10)

    assert [one.id for one in page.items] == [one.id for one in reversed(people)]


@pytest.mark.parametrize(
    ("search", "names"),
    [
        ("user_alice", ["alice"]),
        ("ALICE@", ["alice"]),
        ("al", ["albert", "alice"]),
        ("alice@example.com", ["alice"]),
        ("@example.com", []),
        ("a%", []),
        ("_", []),
        ("usr_0000000000000000000000", []),
        ("\0", []),
        ("\ud800", []),
        ("\U0010ffff", []),
    ],
)
async def test_people_are_found_by_id_and_by_how_their_address_begins(
    database: Database, administration: Administration, search: str, names: list[str]
) -> None:
    for name in ("alice", "albert", "bob"):
        made = await user(database, name)
        await execute(database, "UPDATE users SET email = $2 WHERE id = $1", made.id, f"{name.title()}@Example.com")

    page = await administration.list_of(search, None, 10)

    assert sorted(one.clerk_id.removeprefix("user_") for one in page.items) == names
