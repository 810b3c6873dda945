import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from provisioning.database.pool import Database
from provisioning.errors import OrganizationMissing
from provisioning.first_sight import FirstSight
from provisioning.new_tokens import FirstToken
from provisioning.profile import Profile
from provisioning.records import Subject
from tests.support.tokens import RULES, SEALER, actions, events

ALONE = Subject("user_alice")
AT_ACME = Subject("user_alice", "org_acme", "acme", "member")
ROOT = Path(__file__).resolve().parents[2]

# Run in processes of their own: many first requests of one subject, then what this process saw.
CROWD = """
import asyncio, sys
from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.profile import Profile
from provisioning.records import Subject

async def main():
    async with Database(sys.argv[1], acquire_timeout=60, statement_timeout=60) as database:
        sight = FirstSight(database)
        subjects = [Subject("user_alice"), Subject("user_alice", "org_acme", "acme")]
        print("ready", flush=True)
        sys.stdin.readline()
        made = await asyncio.gather(*(sight.provision(subjects[n % 2], Profile("Alice")) for n in range(100)))
        print(sum(one.created for one in made), *sorted({one.standing.user.id for one in made}))

asyncio.run(main())
"""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


@pytest.fixture
def sight(database: Database) -> FirstSight:
    return FirstSight(database)


async def count(database: Database, table: str) -> int:
    async with database.connection() as connection:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def test_a_stranger_is_not_found(sight: FirstSight) -> None:
    assert await sight.find("user_alice", None) is None
    assert await sight.find("user_alice", "org_acme") is None


async def test_first_sight_makes_user_and_personal_organization(sight: FirstSight) -> None:
    made = await sight.provision(ALONE, Profile("Alice", "alice@example.com"))
    found = await sight.find("user_alice", None)

    assert made.created
    assert found == made.standing
    assert found is not None
    assert (found.user.name, found.user.email) == ("Alice", "alice@example.com")
    assert (found.organization.name, found.organization.clerk_id) == ("Alice", None)
    assert found.organization_role == "admin"


async def test_first_sight_with_a_clerk_organization_makes_that_one_alone(
    sight: FirstSight, database: Database
) -> None:
    made = await sight.provision(AT_ACME, Profile("Alice"), "Acme Inc.")

    assert await sight.find("user_alice", "org_acme") == made.standing
    assert made.standing.organization.name == "Acme Inc."
    assert made.standing.organization_role == "member"
    assert await sight.find("user_alice", None) is None
    assert await count(database, "organizations") == 1


async def test_a_known_user_gains_a_new_clerk_organization(sight: FirstSight) -> None:
    first = await sight.provision(ALONE, Profile("Alice"))
    second = await sight.provision(AT_ACME, Profile())

    assert not second.created
    assert second.standing.user == first.standing.user
    assert second.standing.organization.name == "acme"
    assert await sight.find("user_alice", None) == first.standing


async def test_a_known_user_gains_the_personal_organization(sight: FirstSight) -> None:
    await sight.provision(AT_ACME, Profile("Alice"))
    personal = await sight.provision(ALONE, Profile())

    assert personal.standing.organization.clerk_id is None
    assert personal.standing.organization.name == "Alice"


async def test_two_people_share_one_clerk_organization(sight: FirstSight, database: Database) -> None:
    alice = await sight.provision(AT_ACME, Profile())
    bob = await sight.provision(Subject("user_bob", "org_acme"), Profile())

    assert alice.standing.organization == bob.standing.organization
    assert alice.standing.user != bob.standing.user
    assert await count(database, "memberships") == 2


async def test_membership_follows_the_role_of_the_token(sight: FirstSight) -> None:
    await sight.provision(AT_ACME, Profile())
    await sight.provision(Subject("user_alice", "org_acme", "acme", "admin"), Profile())
    found = await sight.find("user_alice", "org_acme")

    assert found is not None
    assert found.organization_role == "admin"


async def test_claims_of_a_known_user_are_followed(sight: FirstSight) -> None:
    await sight.provision(ALONE, Profile("Alice", "alice@example.com"))

    changed = await sight.provision(Subject("user_alice", name="Alice B."), Profile())

    assert not changed.created
    assert (changed.standing.user.name, changed.standing.user.email) == ("Alice B.", "alice@example.com")


async def test_two_people_may_claim_one_email(sight: FirstSight, database: Database) -> None:
    await sight.provision(Subject("user_a", email="same@example.com"), Profile(email="same@example.com"))
    await sight.provision(Subject("user_b", email="same@example.com"), Profile(email="same@example.com"))

    assert await count(database, "users") == 2


async def test_no_organization_is_refused_when_personal_ones_are_off(database: Database) -> None:
    sight = FirstSight(database, personal_organizations=False)

    with pytest.raises(OrganizationMissing):
        await sight.provision(ALONE, Profile())

    assert await count(database, "users") == 0


async def test_a_deleted_user_stays_a_tombstone(sight: FirstSight, database: Database) -> None:
    await sight.provision(ALONE, Profile("Alice"))
    async with database.connection() as connection:
        await connection.execute("UPDATE users SET deleted_at = now(), name = NULL")
    subject = Subject("user_alice", "org_acme", "acme", "admin", name="Alice", email="alice@example.com")

    again = await sight.provision(subject, Profile("Alice", "alice@example.com"))

    assert not again.created
    assert again.standing.user.deleted_at is not None
    assert (again.standing.user.name, again.standing.user.email) == (None, None)
    assert again.standing.organization.clerk_id is None
    assert await count(database, "organizations") == 1


async def test_a_disabled_user_is_given_back_as_such(sight: FirstSight, database: Database) -> None:
    await sight.provision(ALONE, Profile())
    async with database.connection() as connection:
        await connection.execute("UPDATE users SET disabled_at = now()")

    again = await sight.provision(AT_ACME, Profile())

    assert again.standing.user.disabled_at is not None


async def test_a_failure_in_the_middle_leaves_no_half_row(sight: FirstSight, database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("ALTER TABLE memberships ADD CONSTRAINT nobody CHECK (role = 'nobody')")

    with pytest.raises(asyncpg.CheckViolationError):
        await sight.provision(ALONE, Profile())

    assert await count(database, "users") == 0
    assert await count(database, "organizations") == 0


async def test_x05_a_hundred_concurrent_first_requests_make_one_user(sight: FirstSight, database: Database) -> None:
    made = await asyncio.gather(*(sight.provision(ALONE, Profile("Alice")) for _ in range(100)))

    assert sum(one.created for one in made) == 1
    assert len({one.standing.user.id for one in made}) == 1
    assert await count(database, "users") == 1
    assert await count(database, "organizations") == 1
    assert await count(database, "memberships") == 1


async def test_x05_a_hundred_concurrent_first_requests_make_one_first_token(database: Database) -> None:
    sight = FirstSight(database, first_token=FirstToken(SEALER, RULES))
    subjects = (ALONE, AT_ACME)
    made = await asyncio.gather(*(sight.provision(subjects[n % 2], Profile("Alice")) for n in range(100)))

    (creator,) = [one.standing for one in made if one.created]
    assert await count(database, "api_tokens") == 1
    assert await actions(database, creator.organization.id) == ["user.created", "api_token.created"]


async def test_the_trail_tells_that_a_known_person_joined_by_a_token_and_has_another_role(
    sight: FirstSight, database: Database
) -> None:
    await sight.provision(ALONE, Profile("Alice"))
    for role in ("member", "member", "admin"):
        made = await sight.provision(replace(AT_ACME, organization_role=role), Profile("Alice"))

    user_id, organization_id = made.standing.user.id, made.standing.organization.id
    told = [(one["action"], one["targets"], one["metadata"]) for one in await events(database, organization_id)]
    assert told == [
        ("membership.created", [user_id], {"role": "member"}),
        ("membership.role_changed", [user_id], {"role": "admin", "before": "member"}),
    ]


async def test_many_people_may_come_to_one_organization_at_once(database: Database) -> None:
    sight = FirstSight(database, first_token=FirstToken(SEALER, RULES))
    people = [Subject(f"user_{n}", "org_acme", "acme") for n in range(50)]
    made = await asyncio.gather(*(sight.provision(subject, Profile()) for subject in people))

    assert await count(database, "api_tokens") == 50
    assert len(await actions(database, made[0].standing.organization.id)) == 100


async def test_a_failure_at_the_last_row_leaves_no_token_and_no_user(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("ALTER TABLE audit_events ADD CONSTRAINT nothing CHECK (action = 'nothing')")

    with pytest.raises(asyncpg.CheckViolationError):
        await FirstSight(database, first_token=FirstToken(SEALER, RULES)).provision(ALONE, Profile("Alice"))

    assert [await count(database, table) for table in ("users", "api_tokens", "audit_chains")] == [0, 0, 0]


async def test_a_known_person_in_a_new_organization_gets_no_second_token(database: Database) -> None:
    sight = FirstSight(database, first_token=FirstToken(SEALER, RULES))
    await sight.provision(ALONE, Profile("Alice"))
    await sight.provision(AT_ACME, Profile("Alice"))

    assert await count(database, "api_tokens") == 1


async def test_first_sight_with_a_token_takes_a_dozen_statements_at_most(database: Database) -> None:
    statements: list[str] = []
    async with database.connection() as connection:
        connection.add_query_logger(lambda record: statements.append(record.query))  # it is lent again below
    await FirstSight(database, first_token=FirstToken(SEALER, RULES)).provision(ALONE, Profile("Alice"))

    assert 5 < len(statements) <= 12, statements


async def test_x05_two_processes_make_one_user_and_no_error(database_url: str, database: Database) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CROWD,
            database_url,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    results = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    words = [output.split() for output, _ in results]

    assert [errors for _, errors in results] == [b"", b""]
    assert sorted(int(line[0]) for line in words) == [0, 1]
    assert len({user for line in words for user in line[1:]}) == 1
    assert await count(database, "users") == 1
    assert await count(database, "organizations") == 2
    assert await count(database, "memberships") == 2
