"""A deadline for whoever is asked, that does not run out because we are late ourselves.

A loop that was busy for half a second, with a burst of requests say, finds a timer that ended and an answer that came
at the same moment, and sees the timer first: a server that answered in time would count as away. So the time is waited
for in slices, each begun when the one before was seen to end; in between the loop reads what came.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SLICES = 5
REQUEST_S = 0.8
"""What a request waits for an answer of several steps, so that it is answered within a second itself. What it waits for
is shared with others and goes on."""
STRANGER_S = 5.0
"""The same where nothing is remembered that could be served instead: many newcomers at once keep PostgreSQL busy for
longer, and busy is not away; when it is away, a statement says so much sooner."""


class _Slices:
    """Lets a limit run out after the last slice."""

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit = limit
        self._slice_s = seconds / SLICES
        self._left = SLICES
        self._loop = asyncio.get_running_loop()
        self.timer = self._loop.call_later(self._slice_s, self._passed)

    def _passed(self) -> None:
        self._left -= 1
        if self._left:
            self.timer = self._loop.call_later(self._slice_s, self._passed)
        else:
            self._limit.reschedule(self._loop.time())


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """Wait for so long inside, and somewhat longer when the loop itself is late.

    Raises:
        TimeoutError: It took longer.
    """
    async with asyncio.timeout(None) as limit:
        slices = _Slices(limit, seconds)
        try:
            yield
        finally:
            slices.timer.cancel()
