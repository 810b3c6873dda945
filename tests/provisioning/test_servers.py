"""The servers that other tests lean on are real."""

import asyncpg

from tests.support.redis_server import RedisServer


async def test_postgresql_of_the_tests_is_real_and_migrated(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    version = await connection.fetchval("SELECT version()")
    users = await connection.fetchval("SELECT count(*) FROM users")
    await connection.close()

    assert version.startswith("PostgreSQL 18")
    assert users == 0


async def test_every_test_has_a_database_of_its_own(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("INSERT INTO users (id, clerk_id) VALUES ('usr_x', 'user_x')")
    users = await connection.fetchval("SELECT count(*) FROM users")
    await connection.close()

    assert users == 1


def test_redis_of_the_tests_is_real(redis_server: RedisServer, redis_url: str) -> None:
    assert redis_url == redis_server.url
    assert redis_server.ask(b"PING") == b"+PONG\r\n"
    assert b"redis_version" in redis_server.ask(b"INFO server")
