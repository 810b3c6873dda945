import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from provisioning.database.pool import Database
from provisioning.records import Subject
from provisioning.token_upkeep import BATCH, TokenReaper, TokenUpkeep
from provisioning.token_uses import TokenUses
from provisioning.tokens import Tokens
from tests.support.tokens import actions, count, execute, person, session_of, tokens_over

MANY = """
    INSERT INTO api_tokens (id, public_id, digest, user_id, organization_id, name, scopes, expires_at)
    SELECT 'atk_' || n, lpad(n::text, 12, '0'), sha256(n::text::bytea), $1, $2, 'CI', '{}', now() - interval '1 second'
    FROM generate_series(1, $3::integer) AS n
"""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


async def until(database: Database, rest: str, number: int) -> None:
    """Wait until `FROM rest` gives no more rows than that."""
    async with asyncio.timeout(20):
        while await count(database, rest) > number:  # noqa: ASYNC110 - a row tells nobody that it changed
            await asyncio.sleep(0.01)


@pytest.fixture
def tokens(database: Database) -> Tokens:
    return tokens_over(database)


async def test_an_expired_token_is_put_on_record_once_and_stays_listed(tokens: Tokens, database: Database) -> None:
    alice = await person(database)
    old = (await tokens.create(session_of(alice), "old", [])).token
    await tokens.create(session_of(alice), "young", [])
    await execute(database, "UPDATE api_tokens SET expires_at = now() WHERE id = $1", old.id)
    reaper = TokenReaper(database)

    assert [await reaper.reap(), await reaper.reap()] == [1, 0]
    assert (await actions(database, alice.organization.id)).count("api_token.expired") == 1
    assert len(await tokens.list_of(alice.user.id)) == 2


async def test_a_revoked_token_does_not_expire_as_well(tokens: Tokens, database: Database) -> None:
    alice = await person(database)
    old = (await tokens.create(session_of(alice), "old", [])).token
    await tokens.revoke(session_of(alice), old.id)
    await execute(database, "UPDATE api_tokens SET expires_at = now()")

    assert await TokenReaper(database).reap() == 0
    assert "api_token.expired" not in await actions(database, alice.organization.id)


async def test_several_processes_reap_many_once_each_with_one_event_per_token(database: Database) -> None:
    alice, bob = await person(database), await person(database, Subject("user_bob"))
    number = 2 * BATCH + 7
    await execute(database, MANY, alice.user.id, alice.organization.id, number)
    await execute(
        database,
        "UPDATE api_tokens SET user_id = $1, organization_id = $2 WHERE public_id < $3",
        bob.user.id,
        bob.organization.id,
        str(number // 2).zfill(12),
    )

    done = await asyncio.gather(*(TokenReaper(database).reap() for _ in range(4)))
    told = await actions(database, alice.organization.id) + await actions(database, bob.organization.id)

    assert sum(done) == number == told.count("api_token.expired")
    assert await count(database, "api_tokens WHERE expiry_noted_at IS NULL") == 0


async def test_a_secret_unread_for_seven_days_is_erased_and_the_token_lives_on(
    tokens: Tokens, database: Database
) -> None:
    alice = await person(database, first_token=True)
    seven_days = "api_tokens WHERE sealed_until - created_at = interval '7 days'"
    sealed = await count(database, seven_days)
    await execute(database, "UPDATE api_tokens SET sealed_until = now()")

    assert sealed == 1
    assert await TokenReaper(database).reap() == 1
    assert await count(database, "api_tokens WHERE sealed_secret IS NULL AND revoked_at IS NULL") == 1
    assert (await actions(database, alice.organization.id))[-1] == "api_token.secret_erased"


@pytest.mark.parametrize(("days", "left"), [(29, 1), (31, 0)])
@pytest.mark.parametrize("column", ["revoked_at", "expiry_noted_at"])
async def test_a_token_that_ended_stays_listed_for_thirty_days(
    tokens: Tokens, database: Database, column: str, days: int, left: int
) -> None:
    alice = await person(database)
    await tokens.create(session_of(alice), "old", [])
    await execute(
        database,
        f"UPDATE api_tokens SET {column} = now() - make_interval(days => $1), expires_at = now() - interval '32 days'",
        days,
    )
    await TokenReaper(database).reap()

    assert len(await tokens.list_of(alice.user.id)) == left


async def test_upkeep_writes_and_reaps_by_itself_and_writes_the_rest_at_its_end(
    tokens: Tokens, database: Database
) -> None:
    alice = await person(database)
    first, second = [(await tokens.create(session_of(alice), name, [])).token for name in ("first", "second")]
    await execute(database, MANY, alice.user.id, alice.organization.id, 1)
    upkeep = TokenUpkeep(TokenUses(database), TokenReaper(database), write_every_s=0.01, reap_every_s=0.01)
    upkeep.start()
    upkeep.uses.note(first.id, "203.0.113.1")
    await until(database, "api_tokens WHERE last_used_at IS NULL AND expiry_noted_at IS NULL", 1)
    upkeep.uses.note(second.id, "203.0.113.1")
    await upkeep.close()

    assert await count(database, "api_tokens WHERE last_used_at IS NULL AND expiry_noted_at IS NULL") == 0


async def test_upkeep_goes_on_after_an_outage(tokens: Tokens, database: Database) -> None:
    alice = await person(database)
    token = (await tokens.create(session_of(alice), "CI", [])).token
    reachable = Database(database._url)  # not open yet: everything asked of it fails
    upkeep = TokenUpkeep(TokenUses(reachable), TokenReaper(reachable), write_every_s=0.01, reap_every_s=0.01)
    upkeep.start()
    upkeep.uses.note(token.id, None)
    while not reachable.failures["closed"]:  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.01)
    async with reachable:
        await until(database, "api_tokens WHERE last_used_at IS NULL", 0)
        await upkeep.close()


async def test_upkeep_goes_on_after_an_error_of_postgresql(tokens: Tokens, database: Database) -> None:
    alice = await person(database)
    token = (await tokens.create(session_of(alice), "CI", [])).token
    await execute(database, "ALTER TABLE api_tokens RENAME TO elsewhere")
    upkeep = TokenUpkeep(TokenUses(database), TokenReaper(database), write_every_s=0.01, reap_every_s=0.01)
    upkeep.uses.note(token.id, None)
    with capture_logs() as logs:
        upkeep.start()
        async with asyncio.timeout(20):
            while len({entry.get("task") for entry in logs}) < 2:  # noqa: ASYNC110 - a log line wakes nobody
                await asyncio.sleep(0.01)
        await execute(database, "ALTER TABLE elsewhere RENAME TO api_tokens")
    await execute(database, MANY, alice.user.id, alice.organization.id, 1)
    await until(database, "api_tokens WHERE id = 'atk_1' AND expiry_noted_at IS NULL", 0)
    await upkeep.close()

    assert {entry["event"] for entry in logs} == {"upkeep_of_api_tokens_failed"}
