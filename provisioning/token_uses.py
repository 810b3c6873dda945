"""When and from where API tokens were last used: noted on the request path in memory, written beside it."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from provisioning.database.pool import Database
from provisioning.errors import DatabaseUnavailable

WINDOW_S = 60.0
MOST_NOTED = 100_000

# Rows that somebody has locked are left out: a rotation or another process writes them, and the next use comes. The
# condition keeps several processes together to one write per token and window.
_WRITE = """
    WITH uses AS (
        SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[]) AS u (id, used_at, address)
    ), free AS (
        SELECT t.id, u.used_at, u.address FROM api_tokens t JOIN uses u ON u.id = t.id
        WHERE t.last_used_at IS NULL OR t.last_used_at <= u.used_at - $4::interval
        FOR NO KEY UPDATE OF t SKIP LOCKED
    )
    UPDATE api_tokens t SET last_used_at = free.used_at, last_used_address = free.address FROM free WHERE t.id = free.id
"""


class TokenUses:
    """Remembers which tokens were used since they were last written, each at most once a minute.

    No more than `MOST_NOTED` of them: past that, a use is not noted, and nothing else happens.
    """

    def __init__(
        self,
        database: Database,
        *,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin with nothing noted.

        Args:
            database: Where it is written.
            window_s: Seconds for which a token that was noted is not noted again.
            clock: Unix time in seconds.
        """
        self._database = database
        self._window_s = window_s
        self._clock = clock
        self._noted: dict[str, float] = {}
        self._waiting: dict[str, tuple[float, str | None]] = {}

    def note(self, token_id: str, address: str | None) -> None:
        """Remember a use; for all but the first in a minute this is one look into a table.

        Args:
            token_id: `atk_…`.
            address: The client's; None when unknown.
        """
        now = self._clock()
        noted = self._noted.get(token_id)
        if noted is not None and noted <= now < noted + self._window_s:  # a clock set back must not stop the notes
            return
        if noted is None and len(self._noted) >= MOST_NOTED:
            return
        self._noted[token_id] = now
        self._waiting[token_id] = now, address

    async def write(self) -> int:
        """Write what was noted, in one statement, and forget what is older than the window.

        Returns:
            How many tokens were in it.

        Raises:
            DatabaseUnavailable: It is kept for the next time.
        """
        now = self._clock()
        self._noted = {key: at for key, at in self._noted.items() if at <= now < at + self._window_s}
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return 0
        moments = [datetime.fromtimestamp(at, UTC) for at, _ in waiting.values()]
        addresses = [address for _, address in waiting.values()]
        window = timedelta(seconds=self._window_s)
        try:
            async with self._database.connection() as connection:
                await connection.execute(_WRITE, list(waiting), moments, addresses, window)
        except (DatabaseUnavailable, asyncio.CancelledError):
            self._waiting = waiting | self._waiting  # the later use of a token counts
            raise
        return len(waiting)
