"""When to stop asking a dependency that is away: closed, open for a moment, then one probe."""

import time
from collections.abc import Callable

TIMEOUTS_TO_TRIP = 2


class Breaker:
    """Decides whether to try. Every `allows` that said yes must end in one of the other three calls."""

    def __init__(self, open_s: float = 0.5, clock: Callable[[], float] = time.monotonic) -> None:
        """Start closed.

        Args:
            open_s: How long nobody tries after a failure; at most a second, so that recovery is quick.
            clock: Seconds that never go back.
        """
        self._open_s = open_s
        self._clock = clock
        self._open_until: float | None = None
        self._probing = False
        self._timeouts = 0
        self.trips = 0

    @property
    def closed(self) -> bool:
        """Whether the dependency counts as present."""
        return self._open_until is None

    def rest_s(self) -> float:
        """Seconds until somebody may try; 0 when that is now."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())

    def allows(self) -> bool:
        """Whether to try now. When the pause is over, the first to ask is the probe, and the only one until it ends."""
        if self._open_until is None:
            return True
        if self._probing or self._clock() < self._open_until:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        """It answered, whatever it said."""
        self._open_until = None
        self._probing = False
        self._timeouts = 0

    def failed(self, *, timed_out: bool = False) -> bool:
        """It did not serve; tells whether this opened the breaker.

        A single late answer may be one slow statement; two without a success between mean that nobody is there.
        """
        self._timeouts += timed_out
        if timed_out and self.closed and self._timeouts < TIMEOUTS_TO_TRIP:
            return False
        opened = self.closed
        self._open_until = self._clock() + self._open_s
        self._probing = False
        self.trips += opened
        return opened

    def abandoned(self) -> None:
        """The try ended without a verdict, for example cancelled: the next one may probe."""
        self._probing = False
