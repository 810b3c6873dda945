import asyncio
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from provisioning.database.migrate import known_revisions, pending, upgrade
from provisioning.errors import DatabaseUnavailable, MigrationFailed

ALL = known_revisions()
ROOT = Path(__file__).resolve().parents[3]


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


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
