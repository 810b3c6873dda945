"""Which webhook deliveries are known, so that each has its effect once; those of long ago are forgotten.

Beside that, what was noted of people while webhooks told of their deletion is erased (`erasure.py`).

Services send again what was not acknowledged, for some days at most. Effects are ordered by what events say of their
time, so an older delivery that somebody sends again by hand changes nothing either.
"""

import asyncio
import random
from datetime import timedelta

import asyncpg
import structlog

from provisioning.background import end_tasks
from provisioning.database.pool import Connection, Database
from provisioning.erasure import erase_late
from provisioning.errors import DatabaseUnavailable

BATCH = 1000
KEPT_FOR = timedelta(days=30)
FORGET_EVERY_S = 3600.0
_log = structlog.get_logger(__name__)

_NOTE = """
    INSERT INTO webhook_deliveries (source, delivery_id) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true
"""
# Several processes forget at once: each takes rows that nobody else holds.
_FORGET = f"""
    DELETE FROM webhook_deliveries WHERE (source, delivery_id) IN (
        SELECT source, delivery_id FROM webhook_deliveries WHERE received_at <= now() - $1::interval
        ORDER BY received_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED
    )
"""  # noqa: S608 - a number of our own


async def first_time(connection: Connection, source: str, delivery_id: str) -> bool:
    """Note a delivery inside the caller's transaction, as its first statement; False when it is known.

    One that is under way elsewhere is waited for: known when that commits, new when it does not.

    Args:
        connection: Within a transaction: the note stays with its effect, or goes with it.
        source: Who sends, such as `clerk`.
        delivery_id: What the sender calls it, the same whenever it is sent again.
    """
    return bool(await connection.fetchval(_NOTE, source, delivery_id))


class DeliveryUpkeep:
    """One background task that forgets old deliveries, and traces of people who are gone."""

    def __init__(self, database: Database, *, forget_every_s: float = FORGET_EVERY_S) -> None:
        self._database = database
        self._forget_every_s = forget_every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first round comes after a part of its time, so that processes do not march in step."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End."""
        await end_tasks(self._task)

    async def forget(self) -> int:
        """Delete what is older than `KEPT_FOR`, a batch per statement; gives how many rows that were.

        Raises:
            DatabaseUnavailable: The rest is for the next time.
        """
        done = 0
        while True:
            async with self._database.connection() as connection:
                rows = int((await connection.execute(_FORGET, KEPT_FOR)).rpartition(" ")[2])
            done += rows
            if rows < BATCH:
                return done

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._forget_every_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            try:
                await self.forget()
                await erase_late(self._database)
            except DatabaseUnavailable:
                pass  # counted where it happened
            except asyncpg.PostgresError as error:
                _log.error("upkeep_of_deliveries_failed", reason=type(error).__name__, sqlstate=error.sqlstate)
