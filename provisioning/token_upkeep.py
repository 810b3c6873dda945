"""What has to be done about API tokens while nobody asks: ends are put on record, secrets and old rows go."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import asyncpg
import structlog

from provisioning.audit import GATEWAY, append
from provisioning.background import end_tasks
from provisioning.database.pool import Database
from provisioning.errors import DatabaseUnavailable
from provisioning.new_tokens import told
from provisioning.rows import API_TOKEN_COLUMNS, api_token_of
from provisioning.token_uses import TokenUses

BATCH = 200
KEPT_FOR = timedelta(days=30)
WRITE_EVERY_S = 5.0
REAP_EVERY_S = 60.0
_log = structlog.get_logger(__name__)

# Several processes reap at once: each takes rows that nobody else holds.
_NOTE_EXPIRED = f"""
    UPDATE api_tokens t SET expiry_noted_at = now(), sealed_secret = NULL, sealed_until = NULL
    WHERE t.id IN (
        SELECT id FROM api_tokens
        WHERE expires_at <= now() AND expiry_noted_at IS NULL AND revoked_at IS NULL
        ORDER BY expires_at LIMIT {BATCH} FOR NO KEY UPDATE SKIP LOCKED
    ) RETURNING {API_TOKEN_COLUMNS}
"""  # noqa: S608 - column names of our own, here and below
_ERASE_UNREAD = f"""
    UPDATE api_tokens t SET sealed_secret = NULL, sealed_until = NULL
    WHERE t.id IN (
        SELECT id FROM api_tokens WHERE sealed_until <= now()
        ORDER BY sealed_until LIMIT {BATCH} FOR NO KEY UPDATE SKIP LOCKED
    ) RETURNING {API_TOKEN_COLUMNS}
"""  # noqa: S608
_DELETE_OLD = f"""
    DELETE FROM api_tokens WHERE id IN (
        SELECT id FROM api_tokens
        WHERE (revoked_at IS NOT NULL OR expiry_noted_at IS NOT NULL)
          AND coalesce(revoked_at, expiry_noted_at) <= now() - $1::interval
        ORDER BY coalesce(revoked_at, expiry_noted_at) LIMIT {BATCH} FOR UPDATE SKIP LOCKED
    ) RETURNING id
"""  # noqa: S608


class TokenReaper:
    """Goes through what has ended, a batch per transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reap(self) -> int:
        """Do all there is to do; gives how many rows that were.

        Raises:
            DatabaseUnavailable: The rest is for the next time.
        """
        done = 0
        for step in (self._note_expired, self._erase_unread, self._delete_old):
            while True:
                rows = await step()
                done += rows
                if rows < BATCH:
                    break
        return done

    async def _note_expired(self) -> int:
        return await self._with_events(_NOTE_EXPIRED, "expired")

    async def _erase_unread(self) -> int:
        return await self._with_events(_ERASE_UNREAD, "secret_erased")

    async def _with_events(self, statement: str, action: str) -> int:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(statement)
            if rows:
                await append(connection, *(told(action, api_token_of(row), GATEWAY) for row in rows))
        return len(rows)

    async def _delete_old(self) -> int:
        async with self._database.connection() as connection:
            return len(await connection.fetch(_DELETE_OLD, KEPT_FOR))


class TokenUpkeep:
    """Two background tasks: one writes uses every few seconds, one reaps every minute.

    Attributes:
        uses: Where requests note them.
    """

    def __init__(
        self,
        uses: TokenUses,
        reaper: TokenReaper,
        *,
        write_every_s: float = WRITE_EVERY_S,
        reap_every_s: float = REAP_EVERY_S,
    ) -> None:
        self.uses = uses
        self._reaper = reaper
        self._write_every_s = write_every_s
        self._reap_every_s = reap_every_s
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def start(self) -> None:
        """Begin; the first round comes after a part of its time, so that processes do not march in step."""
        self._tasks = (asyncio.create_task(self._write()), asyncio.create_task(self._reap()))

    async def close(self) -> None:
        """End, and write what was noted last, if PostgreSQL is there."""
        tasks, self._tasks = self._tasks, ()
        await end_tasks(*tasks)
        if tasks:
            with _going_on("write"):
                await self.uses.write()

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(self._write_every_s)
            with _going_on("write"):
                await self.uses.write()

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(self._reap_every_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            with _going_on("reap"):
                if done := await self._reaper.reap():
                    _log.info("api_tokens_reaped", rows=done)


@contextmanager
def _going_on(task: str) -> Iterator[None]:
    """Let a round fail and the next one come, whatever PostgreSQL says."""
    try:
        yield
    except DatabaseUnavailable:
        pass  # counted where it happened
    except asyncpg.PostgresError as error:
        _log.error("upkeep_of_api_tokens_failed", task=task, reason=type(error).__name__, sqlstate=error.sqlstate)
