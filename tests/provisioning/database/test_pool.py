import asyncio
import time

import asyncpg
import pytest

from provisioning.database.pool import Database, unavailable_reason
from provisioning.errors import DatabaseUnavailable
from provisioning.first_sight import FirstSight
from provisioning.profile import Profile
from provisioning.records import Subject
from tests.support.postgres import PostgresServer

GENEROUS_S = 10.0


async def one(database: Database) -> int:
    async with database.connection() as connection:
        return int(await connection.fetchval("SELECT 1"))


async def outcome(database: Database) -> str:
    """`ok`, or the reason it is unavailable."""
    try:
        await one(database)
    except DatabaseUnavailable as error:
        return error.reason
    return "ok"


async def until_ok(database: Database) -> bool:
    async with asyncio.timeout(GENEROUS_S):
        while await outcome(database) != "ok":  # noqa: ASYNC110 - asking is the point
            await asyncio.sleep(0.05)
    return True


async def test_a_connection_answers(database_url: str) -> None:
    async with Database(database_url) as database:
        assert await one(database) == 1
        assert database.connections_lent == 1


async def test_a_unix_socket_works(postgres_server: PostgresServer) -> None:
    async with Database(postgres_server.socket_url) as database:
        assert await one(database) == 1


async def test_opening_asks_nothing_so_a_gateway_starts_while_postgresql_is_away() -> None:
    async with Database("postgresql://gateway@127.0.0.1:1/gateway") as database:
        assert await outcome(database) == "unreachable"


async def test_a_closed_database_is_unavailable(database_url: str) -> None:
    database = Database(database_url)
    await database.open()
    await database.close()

    assert await outcome(database) == "closed"


async def test_o02_postgresql_stopped_is_unavailable_at_once_and_started_again_works(
    postgres_server: PostgresServer,
) -> None:
    async with Database(postgres_server.url) as database:
        sight = FirstSight(database)
        known = await sight.provision(Subject("user_known"), Profile())
        await postgres_server.stop()
        began = time.monotonic()
        for number in range(20):
            with pytest.raises(DatabaseUnavailable):
                await sight.provision(Subject(f"user_{number}"), Profile())
        took = time.monotonic() - began
        await postgres_server.start()

        assert took < GENEROUS_S
        assert await until_ok(database)
        assert await sight.find("user_known", None) == known.standing
        assert await sight.find("user_0", None) is None


async def test_o02_while_postgresql_is_away_only_a_probe_now_and_then_dials(postgres_server: PostgresServer) -> None:
    async with Database(postgres_server.url) as database:
        await one(database)
        await postgres_server.stop()
        outcomes = [await outcome(database) for _ in range(500)]

        assert "ok" not in outcomes
        assert outcomes.count("breaker_open") > 480


async def test_o02_a_frozen_postgresql_is_unavailable_for_all_who_wait(postgres_server: PostgresServer) -> None:
    async with Database(postgres_server.url, pool_size=2) as database:
        await asyncio.gather(one(database), one(database))
        postgres_server.freeze()
        try:
            async with asyncio.timeout(GENEROUS_S):
                outcomes = await asyncio.gather(*(outcome(database) for _ in range(50)))
        finally:
            postgres_server.thaw()

        assert "ok" not in outcomes
        assert outcomes.count("timeout") <= 4
        assert await until_ok(database)


async def test_a_pool_whose_connections_were_killed_heals(database_url: str) -> None:
    async with Database(database_url) as database:
        await asyncio.gather(*(one(database) for _ in range(5)))
        connection = await asyncpg.connect(database_url)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gateway'"
        )
        await connection.close()

        assert await until_ok(database)
        assert set(await asyncio.gather(*(outcome(database) for _ in range(20)))) == {"ok"}


async def test_a_busy_pool_is_not_an_outage(database_url: str) -> None:
    async with Database(database_url, pool_size=1, acquire_timeout=0.05) as database:
        async with database.connection():
            waited = await outcome(database)

        assert waited == "pool_exhausted"
        assert await outcome(database) == "ok"
        assert database.breaker.trips == 0


async def test_a_waiter_that_is_cancelled_leaves_its_place_to_others(database_url: str) -> None:
    async with Database(database_url, pool_size=1) as database:
        async with database.connection():
            waiters = [asyncio.create_task(outcome(database)) for _ in range(5)]
            await asyncio.sleep(0.01)
            waiters[0].cancel()
            waiters[3].cancel()

        results = await asyncio.gather(*waiters, return_exceptions=True)

        assert results.count("ok") == 3
        assert await outcome(database) == "ok"


async def test_a_burst_over_the_pool_size_is_queued(database_url: str) -> None:
    async with Database(database_url, pool_size=3, acquire_timeout=60) as database:
        outcomes = await asyncio.gather(*(outcome(database) for _ in range(200)))

        assert set(outcomes) == {"ok"}
        assert database.connections_lent == 200


async def test_a_late_statement_is_a_timeout_but_one_alone_is_no_outage(database_url: str) -> None:
    async with Database(database_url, statement_timeout=0.2) as database:
        with pytest.raises(DatabaseUnavailable) as caught:
            async with database.connection() as connection:
                await connection.execute("SELECT pg_sleep(30)")

        assert caught.value.reason == "timeout"
        assert await outcome(database) == "ok"


async def test_errors_of_statements_pass_as_they_are(database_url: str) -> None:
    async with Database(database_url) as database:
        with pytest.raises(asyncpg.UndefinedTableError):
            async with database.connection() as connection:
                await connection.execute("SELECT * FROM nowhere")

        assert database.breaker.closed


async def test_a_transaction_is_rolled_back_by_any_error(database_url: str) -> None:
    async with Database(database_url, pool_size=1) as database:
        with pytest.raises(LookupError):
            async with database.transaction() as connection:
                await connection.execute("INSERT INTO users (id, clerk_id) VALUES ('usr_x', 'user_x')")
                raise LookupError
        async with database.connection() as connection:
            count = await connection.fetchval("SELECT count(*) FROM users")

        assert count == 0


async def test_a_transaction_is_rolled_back_when_its_task_is_cancelled(database_url: str) -> None:
    async with Database(database_url, pool_size=1) as database:
        inserted = asyncio.Event()

        async def work() -> None:
            async with database.transaction() as connection:
                await connection.execute("INSERT INTO users (id, clerk_id) VALUES ('usr_x', 'user_x')")
                inserted.set()
                await connection.execute("SELECT pg_sleep(30)")

        task = asyncio.create_task(work())
        await inserted.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with database.connection() as connection:
            count = await connection.fetchval("SELECT count(*) FROM users")

        assert count == 0


async def test_a_read_only_server_counts_as_unavailable(database_url: str) -> None:
    async with Database(database_url) as database:
        async with database.connection() as connection:
            await connection.execute("SET default_transaction_read_only = on")
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as caught:
                await connection.execute("DELETE FROM memberships")

        assert unavailable_reason(caught.value, closed=False) == "refused"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (asyncpg.TooManyConnectionsError("full"), "refused"),
        (asyncpg.CannotConnectNowError("starting up"), "refused"),
        (asyncpg.AdminShutdownError("stopping"), "refused"),
        (asyncpg.InvalidPasswordError("rotated"), "refused"),
        (asyncpg.InvalidCatalogNameError("no such database"), "refused"),
        (asyncpg.ConnectionDoesNotExistError("gone"), "unreachable"),
        (ConnectionResetError(), "unreachable"),
        (TimeoutError(), "timeout"),
        (asyncpg.QueryCanceledError("statement timeout"), "timeout"),
        (asyncpg.UniqueViolationError("double"), None),
        (asyncpg.DataError("wrong type"), None),
        (ValueError(), None),
    ],
)
def test_what_counts_as_unavailable(error: Exception, reason: str | None) -> None:
    assert unavailable_reason(error, closed=False) == reason


async def test_a_database_that_does_not_exist_is_unavailable(database_url: str) -> None:
    async with Database(database_url.replace("/test_", "/no_test_")) as database:
        assert await outcome(database) == "refused"
