"""Brings the schema up to date: alembic's revisions, applied once however many replicas start together.

The usual start finds nothing to do, and then only one small query runs: alembic and SQLAlchemy are imported only when
the schema is behind (0.4 s). Revisions are known by their file names.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg
import structlog

from provisioning.errors import DatabaseUnavailable, MigrationFailed

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection as SyncConnection

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_S = 5.0
LOCK_WAIT_S = 120.0
_LOCK_POLL_S = 0.05
_TOLD_EVERY_S = 5.0
_LOCK_KEY = 0x6163746F7267  # "actorg": any constant of our own


def known_revisions() -> tuple[str, ...]:
    """Every revision this release has, oldest first."""
    folder = files("provisioning.database.migrations") / "versions"
    names = [entry.name for entry in folder.iterdir() if entry.name.endswith(".py") and entry.name[0].isdigit()]
    return tuple(sorted(name.split("_", 1)[0] for name in names))


async def pending(url: str) -> tuple[str, ...]:
    """List the revisions the database at `url` lacks, oldest first: none, with a warning, when it is newer than we are.

    Raises:
        DatabaseUnavailable: It cannot be asked.
    """
    async with _connection(url) as connection:
        return await _pending(connection)


async def upgrade(url: str) -> tuple[str, ...]:
    """Apply what is pending; the result names it, oldest first, and is empty for every replica but one.

    Args:
        url: A direct DSN: the lock belongs to a session, which a pooler in transaction mode would not keep.

    Raises:
        DatabaseUnavailable: It cannot be asked.
        MigrationFailed: A revision failed (nothing of it stays; those before it do), or another replica held the lock
            for too long.
    """
    async with _connection(url) as connection:
        if not await _pending(connection):
            return ()
        await _lock(connection)
        missing = await _pending(connection)  # another replica may have been first
        if missing:
            await _apply(url, missing)
            log.info("database_migrated", revisions=missing)
        return missing  # closing the connection gives the lock back


async def ensure(url: str, *, automatic: bool, wait_s: float) -> None:
    """Bring the schema up to date, or see that it is; waits for a PostgreSQL that does not answer yet.

    Args:
        url: As for `upgrade`.
        automatic: Apply what is pending; else that is an error.
        wait_s: How long to wait for an answer.

    Raises:
        DatabaseUnavailable: None came in time.
        MigrationFailed: As `upgrade`; or something is pending and not to be applied here.
    """
    began, told_at = time.monotonic(), -math.inf
    while True:
        try:
            if automatic:
                await upgrade(url)
            elif missing := await pending(url):
                raise MigrationFailed(f"the schema lacks {', '.join(missing)}; run `gateway migrate`")
        except DatabaseUnavailable as error:
            now = time.monotonic()
            if now - began >= wait_s:
                raise
            if now - told_at >= _TOLD_EVERY_S:
                told_at = now
                log.warning("waiting for the database", cause=str(error.__cause__ or error))
            await asyncio.sleep(0.5)
        else:
            return


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    try:
        connection = await asyncpg.connect(
            url, timeout=CONNECT_TIMEOUT_S, server_settings={"application_name": "gateway migrate"}
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailable from error
    try:
        yield connection
    except (OSError, asyncpg.PostgresConnectionError) as error:
        raise DatabaseUnavailable from error
    finally:
        connection.terminate()


async def _pending(connection: "asyncpg.Connection[asyncpg.Record]") -> tuple[str, ...]:
    revisions = await asyncio.to_thread(known_revisions)
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return revisions
    current = await connection.fetchval("SELECT version_num FROM alembic_version")
    if current is None:
        return revisions
    if current not in revisions:
        # A rolling deploy: the next release has migrated already, and its revisions never break this one.
        log.warning("database_newer_than_release", database=current, release=revisions[-1])
        return ()
    return revisions[revisions.index(current) + 1 :]


async def _lock(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Wait by asking again: a *blocked* waiter holds a snapshot, and CREATE INDEX CONCURRENTLY waits for those."""
    try:
        async with asyncio.timeout(LOCK_WAIT_S):
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK_KEY):  # noqa: ASYNC110
                await asyncio.sleep(_LOCK_POLL_S)
    except TimeoutError:
        raise MigrationFailed("another process has been migrating this database for too long") from None


async def _apply(url: str, missing: tuple[str, ...]) -> None:
    """Run alembic in a thread with a loop of its own: it imports, reads files and compiles, and ours must not wait."""
    try:
        await asyncio.to_thread(lambda: asyncio.run(_run(url)))
    except Exception as error:
        raise MigrationFailed(f"migrating to {missing[-1]} failed: {type(error).__name__}: {error}") from error


async def _run(url: str) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(
            url,
            timeout=CONNECT_TIMEOUT_S,
            # Better to fail and be tried again than to hold up every query behind a lock that does not come.
            server_settings={"application_name": "gateway migrate", "lock_timeout": "10s"},
        )

    # The creator keeps our DSN out of SQLAlchemy's own grammar, which reads sockets and TLS settings differently.
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection:  # begins nothing: `env.py` does, for each revision
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


def _upgrade(connection: "SyncConnection") -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "provisioning:database/migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
