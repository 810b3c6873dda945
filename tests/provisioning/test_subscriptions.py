"""Trials: one for each organization, for ever, whoever comes and however many at once."""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from provisioning.arrivals import Arrivals
from provisioning.clerk_api import ClerkApi
from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.memberships import Memberships
from provisioning.new_tokens import FirstToken
from provisioning.profile import Profile
from provisioning.records import Subject
from provisioning.subscriptions import Subscriptions, Trials
from provisioning.tokens import Tokens
from tests.support.tokens import RULES, SEALER, actions, count, events, execute, person, session_of, tokens_over

ROOT = Path(__file__).resolve().parents[2]
TRIALS = Trials(14, "pro")
ALONE = Subject("user_alice")
AT_ACME = Subject("user_alice", "org_acme", "acme")
BOB_AT_ACME = Subject("user_bob", "org_acme", "acme")

# Run in processes of their own: several people of one organization and on their own, at the same time.
CROWD = """
import asyncio, sys
from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.profile import Profile
from provisioning.records import Subject
from provisioning.subscriptions import Trials

async def main():
    async with Database(sys.argv[1], acquire_timeout=60, statement_timeout=60) as database:
        sight = FirstSight(database, trials=Trials(14, "pro"))
        people = [Subject(f"user_{n}", "org_acme", "acme") for n in range(5)] + [Subject("user_0")]
        print("ready", flush=True)
        sys.stdin.readline()
        made = await asyncio.gather(*(sight.provision(people[n % 6], Profile("Someone")) for n in range(30)))
        print(*sorted({one.standing.subscription.id for one in made}))

asyncio.run(main())
"""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


@pytest.fixture
def sight(database: Database) -> FirstSight:
    return FirstSight(database, trials=TRIALS)


@pytest.mark.parametrize("subject", [ALONE, AT_ACME], ids=["personal", "clerk"])
async def test_first_sight_of_an_organization_starts_its_trial(
    sight: FirstSight, database: Database, subject: Subject
) -> None:
    made = (await sight.provision(subject, Profile("Alice"))).standing
    trial = made.subscription

    assert trial is not None
    assert (trial.source, trial.plan, trial.status) == ("trial", "pro", "trialing")
    assert trial.organization_id == made.organization.id
    assert trial.trial_ends_at == trial.current_period_end
    assert trial.trial_ends_at is not None
    assert timedelta(0) <= datetime.now(UTC) + timedelta(days=14) - trial.trial_ends_at < timedelta(minutes=5)
    assert await sight.find(subject.clerk_user_id, subject.clerk_organization_id) == made
    assert await sight.find_many([subject]) == [made]
    assert await Subscriptions(database).current(made.organization.id) == trial


async def test_trial_is_on_record_once(sight: FirstSight, database: Database) -> None:
    standing = (await sight.provision(AT_ACME, Profile("Alice"))).standing
    await sight.provision(BOB_AT_ACME, Profile("Bob"))
    assert standing.subscription is not None

    told = [one for one in await events(database, standing.organization.id) if "trial" in one["action"]]

    assert [one["action"] for one in told] == ["subscription.trial_started"]
    assert told[0]["targets"] == [standing.subscription.id, standing.user.id]
    assert told[0]["metadata"]["plan"] == "pro"


async def test_second_person_of_an_organization_starts_no_second_trial(sight: FirstSight, database: Database) -> None:
    alice = (await sight.provision(AT_ACME, Profile("Alice"))).standing
    bob = (await sight.provision(BOB_AT_ACME, Profile("Bob"))).standing

    assert bob.subscription == alice.subscription
    assert await count(database, "subscriptions") == 1


async def test_every_organization_of_a_person_has_a_trial_of_its_own(sight: FirstSight) -> None:
    own = (await sight.provision(ALONE, Profile("Alice"))).standing.subscription
    acme = (await sight.provision(AT_ACME, Profile("Alice"))).standing.subscription

    assert own is not None
    assert acme is not None
    assert own.id != acme.id


async def test_no_trial_is_made_when_trials_are_off(database: Database) -> None:
    standing = (await FirstSight(database).provision(ALONE, Profile("Alice"))).standing

    assert standing.subscription is None
    assert not FirstSight(database).owes_trial(standing)
    assert await count(database, "subscriptions") == 0


async def test_organization_that_others_made_gets_its_trial_with_the_next_request(
    sight: FirstSight, database: Database
) -> None:
    before = (await FirstSight(database).provision(AT_ACME, Profile("Alice"))).standing
    arrivals = Arrivals(sight, ClerkApi.__new__(ClerkApi))  # nobody is asked: all but the trial is there

    assert await arrivals.standings([AT_ACME]) == [None]
    first, second = await arrivals.standing(AT_ACME), await arrivals.standing(AT_ACME)

    assert before.subscription is None
    assert first == second
    assert first.subscription is not None
    assert await arrivals.standings([AT_ACME]) == [first]
    assert arrivals.tally.provisionings == 1


@pytest.mark.parametrize("column", ["disabled_at", "deleted_at"])
async def test_who_is_refused_starts_no_trial(sight: FirstSight, database: Database, column: str) -> None:
    await FirstSight(database).provision(ALONE, Profile("Alice"))
    await execute(database, f"UPDATE users SET {column} = now()")

    standing = (await sight.provision(ALONE, Profile("Alice"))).standing

    assert standing.subscription is None
    assert not sight.owes_trial(standing)
    assert await count(database, "subscriptions") == 0


async def test_organization_with_a_subscription_gets_no_trial(sight: FirstSight, database: Database) -> None:
    standing = (await FirstSight(database).provision(ALONE, Profile("Alice"))).standing
    await execute(
        database,
        """INSERT INTO subscriptions (id, organization_id, source, plan, status, precedence, stripe_subscription_id)
           VALUES ('sub_x', $1, 'stripe', 'team', 'canceled', 2, 'sub_stripe1')""",
        standing.organization.id,
    )

    again = (await sight.provision(ALONE, Profile("Alice"))).standing

    assert again.subscription is not None
    assert again.subscription.plan == "team"
    assert await count(database, "subscriptions") == 1


async def test_a_second_trial_cannot_be_written_by_anybody(sight: FirstSight, database: Database) -> None:
    standing = (await sight.provision(ALONE, Profile("Alice"))).standing

    with pytest.raises(asyncpg.UniqueViolationError):
        await execute(
            database,
            """INSERT INTO subscriptions (id, organization_id, source, plan, precedence, trial_ends_at)
               VALUES ('sub_x', $1, 'trial', 'pro', 3, now())""",
            standing.organization.id,
        )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await execute(database, "DELETE FROM subscriptions")


async def test_failure_of_the_trial_leaves_nothing_half_made(sight: FirstSight, database: Database) -> None:
    await execute(database, "ALTER TABLE subscriptions ADD CONSTRAINT nothing CHECK (plan = 'nothing')")

    with pytest.raises(asyncpg.CheckViolationError):
        await sight.provision(ALONE, Profile("Alice"))

    tables = ("users", "organizations", "memberships", "subscriptions", "audit_events")
    assert [await count(database, table) for table in tables] == [0, 0, 0, 0, 0]


async def test_first_sight_with_all_that_follows_takes_a_dozen_statements_at_most(database: Database) -> None:
    statements: list[str] = []
    async with database.connection() as connection:
        connection.add_query_logger(lambda record: statements.append(record.query))  # it is lent again below
    sight = FirstSight(database, first_token=FirstToken(SEALER, RULES), trials=TRIALS)
    standing = (await sight.provision(ALONE, Profile("Alice"))).standing

    assert 5 < len(statements) <= 12, statements
    assert await actions(database, standing.organization.id) == [
        "user.created",
        "api_token.created",
        "subscription.trial_started",
    ]


async def test_standing_is_read_with_its_subscription_in_one_query(sight: FirstSight, database: Database) -> None:
    await sight.provision(ALONE, Profile("Alice"))
    statements: list[str] = []
    async with database.connection() as connection:
        connection.add_query_logger(lambda record: statements.append(record.query))

    found = await sight.find("user_alice", None)

    assert found is not None
    assert found.subscription is not None
    assert len(statements) == 1


async def test_tokens_and_lists_of_organizations_tell_of_the_subscription(
    sight: FirstSight, database: Database
) -> None:
    standing = (await sight.provision(ALONE, Profile("Alice"))).standing
    await FirstSight(database).provision(AT_ACME, Profile("Alice"))
    tokens: Tokens = tokens_over(database)
    made = await tokens.create(session_of(standing), "Robot", ())

    found = await tokens.find(made.token.public_id)
    listed = await Memberships(database).of_user(standing.user.id)

    assert found is not None
    assert found.standing == standing
    assert [one.subscription for one in listed] == [standing.subscription, None]


async def test_many_first_requests_at_once_start_one_trial_each(sight: FirstSight, database: Database) -> None:
    people = [ALONE, AT_ACME, BOB_AT_ACME, Subject("user_bob")]
    made = await asyncio.gather(*(sight.provision(people[n % 4], Profile("Someone")) for n in range(100)))

    assert len({one.standing.subscription for one in made}) == 3
    assert await count(database, "subscriptions") == 3
    assert await count(database, "audit_events WHERE action = 'subscription.trial_started'") == 3


async def test_eight_processes_start_one_trial_for_each_organization(database_url: str, database: Database) -> None:
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", CROWD, database_url, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    results = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))

    assert [errors for _, errors in results] == [b""] * 8
    assert len({output for output, _ in results}) == 1
    assert len(results[0][0].split()) == 2
    assert await count(database, "subscriptions") == 2
    assert await count(database, "audit_events WHERE action = 'subscription.trial_started'") == 2


async def test_the_organization_of_another_is_never_told(sight: FirstSight, database: Database) -> None:
    await sight.provision(AT_ACME, Profile("Alice"))
    carol = await person(database, Subject("user_carol"))

    assert carol.subscription is None
    assert await Subscriptions(database).current(carol.organization.id) is None
