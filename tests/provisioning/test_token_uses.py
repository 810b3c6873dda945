import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from provisioning import token_uses
from provisioning.database.pool import Database
from provisioning.errors import DatabaseUnavailable
from provisioning.records import ApiToken, Standing
from provisioning.token_uses import WINDOW_S, TokenUses
from provisioning.tokens import Tokens
from tests.support.tokens import count, person, session_of, tokens_over


class Clock:
    """Unix time as a test wants it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def uses(database: Database, clock: Clock) -> TokenUses:
    return TokenUses(database, clock=clock)


@pytest.fixture
def tokens(database: Database) -> Tokens:
    return tokens_over(database)


@pytest.fixture
async def alice(database: Database) -> Standing:
    return await person(database)


@pytest.fixture
async def token(tokens: Tokens, alice: Standing) -> ApiToken:
    return (await tokens.create(session_of(alice), "CI", [])).token


async def test_a_use_is_written_with_its_moment_and_address(
    uses: TokenUses, tokens: Tokens, alice: Standing, token: ApiToken, clock: Clock
) -> None:
    uses.note(token.id, "203.0.113.9")
    await uses.write()
    found = await tokens.get(session_of(alice), token.id)

    assert found.last_used_at == datetime.fromtimestamp(clock.now, UTC)
    assert found.last_used_address == "203.0.113.9"


async def test_t06_a_thousand_uses_in_a_minute_are_one_statement_and_one_write(
    uses: TokenUses, token: ApiToken, clock: Clock, database: Database
) -> None:
    lent = database.connections_lent
    written = []
    for _ in range(60):
        for _ in range(20):
            uses.note(token.id, "203.0.113.9")
        written.append(await uses.write())
        clock.now += (WINDOW_S - 1) / 60

    assert sum(written) == 1
    assert database.connections_lent - lent == 1


async def test_many_tokens_are_written_in_one_statement(
    uses: TokenUses, tokens: Tokens, alice: Standing, database: Database
) -> None:
    made = [(await tokens.create(session_of(alice), "CI", [])).token for _ in range(5)]
    lent = database.connections_lent
    for each in made:
        uses.note(each.id, None)

    assert await uses.write() == 5
    assert database.connections_lent - lent == 1
    assert await count(database, "api_tokens WHERE last_used_at IS NOT NULL") == 5


async def test_the_next_minute_is_written_again(
    uses: TokenUses, tokens: Tokens, alice: Standing, token: ApiToken, clock: Clock
) -> None:
    for address in ("203.0.113.1", "203.0.113.2"):
        uses.note(token.id, address)
        await uses.write()
        clock.now += WINDOW_S

    assert (await tokens.get(session_of(alice), token.id)).last_used_address == "203.0.113.2"


async def test_another_process_does_not_write_the_same_minute_again(
    uses: TokenUses, tokens: Tokens, alice: Standing, token: ApiToken, clock: Clock, database: Database
) -> None:
    other = TokenUses(database, clock=clock)
    uses.note(token.id, "203.0.113.1")
    await uses.write()
    clock.now += WINDOW_S / 2
    other.note(token.id, "203.0.113.2")
    await other.write()

    assert (await tokens.get(session_of(alice), token.id)).last_used_address == "203.0.113.1"


async def test_a_locked_row_is_not_waited_for(
    uses: TokenUses, tokens: Tokens, alice: Standing, token: ApiToken, database: Database
) -> None:
    free = (await tokens.create(session_of(alice), "free", [])).token
    uses.note(token.id, "203.0.113.1")
    uses.note(free.id, "203.0.113.1")
    async with database.transaction() as connection:
        await connection.execute("UPDATE api_tokens SET name = 'busy' WHERE id = $1", token.id)
        await uses.write()

    assert (await tokens.get(session_of(alice), token.id)).last_used_at is None
    assert (await tokens.get(session_of(alice), free.id)).last_used_at is not None


async def test_processes_that_write_the_same_tokens_at_once_do_not_lock_each_other_out(
    tokens: Tokens, alice: Standing, clock: Clock, database: Database
) -> None:
    made = [(await tokens.create(session_of(alice), "CI", [])).token for _ in range(5)]
    processes = [TokenUses(database, clock=clock) for _ in range(8)]
    for number, process in enumerate(processes):
        for each in made if number % 2 else reversed(made):
            process.note(each.id, None)
    await asyncio.gather(*(process.write() for process in processes))

    assert await count(database, "api_tokens WHERE last_used_at IS NOT NULL") == 5


async def test_nothing_noted_asks_nothing(uses: TokenUses, database: Database) -> None:
    lent = database.connections_lent

    assert await uses.write() == 0
    assert database.connections_lent == lent


async def test_what_could_not_be_written_is_written_later(
    uses: TokenUses, tokens: Tokens, alice: Standing, token: ApiToken, database: Database
) -> None:
    away = TokenUses(Database("postgresql://gateway@127.0.0.1:1/gateway"))
    away.note(token.id, "203.0.113.1")
    with pytest.raises(DatabaseUnavailable):
        await away.write()
    away._database = database  # it is back

    assert await away.write() == 1
    assert (await tokens.get(session_of(alice), token.id)).last_used_address == "203.0.113.1"


async def test_a_clock_that_was_set_back_does_not_stop_the_notes(
    uses: TokenUses, token: ApiToken, clock: Clock
) -> None:
    uses.note(token.id, None)
    await uses.write()
    clock.now -= 86400
    uses.note(token.id, None)

    assert await uses.write() == 1


async def test_a_token_that_is_no_more_is_passed_over(uses: TokenUses) -> None:
    uses.note("atk_gone", "203.0.113.1")

    assert await uses.write() == 1


async def test_no_more_tokens_are_noted_than_memory_is_meant_for(
    uses: TokenUses, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_uses, "MOST_NOTED", 3)
    for number in range(5):
        uses.note(f"atk_{number}", None)
    first = await uses.write()
    clock.now += WINDOW_S
    await uses.write()
    uses.note("atk_4", None)

    assert first == 3
    assert await uses.write() == 1


async def test_a_write_that_is_cancelled_loses_nothing(
    uses: TokenUses, tokens: Tokens, alice: Standing, token: ApiToken, database: Database
) -> None:
    uses.note(token.id, "203.0.113.1")
    writing = asyncio.create_task(uses.write())
    await asyncio.sleep(0)  # it has taken what waits, and asks for a connection
    writing.cancel()
    await asyncio.wait([writing])

    assert writing.cancelled()
    assert await uses.write() == 1
    assert (await tokens.get(session_of(alice), token.id)).last_used_address == "203.0.113.1"
