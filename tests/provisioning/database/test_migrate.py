import asyncio
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from provisioning.database.migrate import known_revisions, pending, upgrade
from provisioning.database.migrations import versions
from provisioning.database.pool import Database
from provisioning.errors import DatabaseUnavailable, MigrationFailed
from provisioning.first_sight import FirstSight

ALL = known_revisions()
LEFT = (
    "INSERT INTO users (id, clerk_id, deleted_at) VALUES ('usr_1', 'user_1', now()), ('usr_2', 'user_2', NULL)",
    """
    INSERT INTO organizations (id, personal_owner_id, name)
    VALUES ('org_1', 'usr_1', 'Alice'), ('org_2', 'usr_2', 'Bob')
    """,
    """
    INSERT INTO api_tokens (id, public_id, digest, user_id, organization_id, name, scopes)
    SELECT 'atk_' || n, 'publicid000' || n, sha256(n::text::bytea), 'usr_' || n, 'org_' || n, name, '{}'
    FROM (VALUES (1, 'Alice'), (2, 'Bob')) AS people (n, name)
    """,
    """
    INSERT INTO logins SELECT 'sess_' || n, 'usr_' || n, 'org_' || n, NULL, '203.0.113.7', 'Agent', now(), now()
    FROM (VALUES (1), (2)) AS people (n)
    """,
    """
    INSERT INTO outbox (topic, kind, key, payload)
    SELECT 'slack', 'user_created', n, jsonb_build_object('userId', 'usr_' || n, 'name', name)
    FROM (VALUES (1, 'Alice'), (2, 'Bob')) AS people (n, name)
    """,
)
"""What an earlier release left of Alice, who was deleted, and of Bob, who was not."""
EARLIER = ("0001_people", "0002_tokens", "0003_audit", "0004_signing_keys")
ROOT = Path(__file__).resolve().parents[3]


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def migrated_by_earlier_release(url: str) -> None:
    for name in EARLIER:
        for statement in import_module(f"{versions.__name__}.{name}").STATEMENTS:
            await execute(url, statement)
    await execute(url, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    await execute(url, f"INSERT INTO alembic_version VALUES ('{EARLIER[-1][:4]}')")


async def test_an_empty_database_lacks_every_revision(empty_database_url: str) -> None:
    assert await pending(empty_database_url) == ALL


async def test_upgrade_applies_what_is_pending_once(empty_database_url: str) -> None:
    first = await upgrade(empty_database_url)
    second = await upgrade(empty_database_url)

    assert first == ALL
    assert second == ()
    assert await pending(empty_database_url) == ()


async def test_eight_replicas_at_once_apply_once(empty_database_url: str) -> None:
    results = await asyncio.gather(*(upgrade(empty_database_url) for _ in range(8)))

    assert sorted(results, key=len) == [()] * 7 + [ALL]


async def test_a_database_of_an_earlier_release_is_taken_along_with_all_it_holds(empty_database_url: str) -> None:
    await migrated_by_earlier_release(empty_database_url)
    await execute(empty_database_url, "INSERT INTO users (id, clerk_id, name) VALUES ('usr_1', 'user_1', 'Alice')")
    await execute(
        empty_database_url, "INSERT INTO organizations (id, personal_owner_id, name) VALUES ('org_1', 'usr_1', 'Own')"
    )
    await execute(empty_database_url, "INSERT INTO memberships VALUES ('usr_1', 'org_1', 'admin')")

    applied = await upgrade(empty_database_url)
    async with Database(empty_database_url) as database:
        standing = await FirstSight(database).find("user_1", None)

    assert applied == ALL[len(EARLIER) :]
    assert standing is not None
    assert (standing.user.name, standing.organization.name, standing.organization_role) == ("Alice", "Own", "admin")
    assert (standing.user.banned_at, standing.subscription) == (None, None)


async def test_people_can_be_read_while_a_later_revision_is_busy_with_the_audit_trail(empty_database_url: str) -> None:
    await migrated_by_earlier_release(empty_database_url)
    writer, reader = await asyncpg.connect(empty_database_url), await asyncpg.connect(empty_database_url)
    async with writer.transaction():
        await writer.execute("LOCK TABLE audit_events IN ROW EXCLUSIVE MODE")  # what indexes it has to wait
        migrating = asyncio.create_task(upgrade(empty_database_url))
        while not await reader.fetchval(  # noqa: ASYNC110 - nobody here is told
            "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'audit_events'::regclass AND NOT granted)"
        ):
            await asyncio.sleep(0.01)
        async with reader.transaction():
            await reader.execute("LOCK TABLE users, organizations, memberships IN ROW EXCLUSIVE MODE NOWAIT")
    applied = await migrating
    await writer.close()
    await reader.close()

    assert applied == ALL[len(EARLIER) :]
    assert await pending(empty_database_url) == ()


async def test_what_was_left_of_people_who_were_deleted_before_is_erased(empty_database_url: str) -> None:
    folder = Path(versions.__file__).parent
    for name in sorted(path.stem for path in folder.glob("0*.py") if path.stem < "0011"):
        for statement in import_module(f"{versions.__name__}.{name}").STATEMENTS:
            await execute(empty_database_url, statement)
    for statement in LEFT:
        await execute(empty_database_url, statement)
    await execute(empty_database_url, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    await execute(empty_database_url, "INSERT INTO alembic_version VALUES ('0010')")

    await upgrade(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    names = [row["name"] for row in await connection.fetch("SELECT name FROM organizations ORDER BY id")]
    tokens = [row["name"] for row in await connection.fetch("SELECT name FROM api_tokens ORDER BY id")]
    logins = [row["session_id"] for row in await connection.fetch("SELECT session_id FROM logins")]
    told = [tuple(row) for row in await connection.fetch("SELECT state, payload::text FROM outbox ORDER BY id")]
    await connection.close()

    assert names == ["Personal", "Bob"]
    assert tokens == ["deleted", "Bob"]
    assert logins == ["sess_2"]
    assert told == [("delivered", "{}"), ("pending", '{"name": "Bob", "userId": "usr_2"}')]


async def test_a_database_newer_than_the_release_is_left_alone_with_a_warning(database_url: str) -> None:
    await execute(database_url, "UPDATE alembic_version SET version_num = '9999'")

    with capture_logs() as logs:
        applied = await upgrade(database_url)

    assert applied == ()
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("database_newer_than_release", "warning")]


async def test_a_failed_revision_leaves_nothing_behind(empty_database_url: str) -> None:
    await execute(empty_database_url, "CREATE TABLE memberships ()")

    with pytest.raises(MigrationFailed, match="memberships"):
        await upgrade(empty_database_url)

    assert await pending(empty_database_url) == ALL
    connection = await asyncpg.connect(empty_database_url)
    users = await connection.fetchval("SELECT to_regclass('users')")
    await connection.close()

    assert users is None


async def test_a_database_that_is_away_is_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable):
        await upgrade("postgresql://gateway@127.0.0.1:1/gateway")


def test_alembic_is_not_imported_when_nothing_is_pending(database_url: str) -> None:
    code = (
        "import asyncio, sys; from provisioning.database.migrate import upgrade; "
        "asyncio.run(upgrade(sys.argv[1])); print(*sys.modules)"
    )
    modules = subprocess.run(
        [sys.executable, "-c", code, database_url], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()

    assert "asyncpg" in modules
    assert "alembic" not in modules
    assert "sqlalchemy" not in modules
