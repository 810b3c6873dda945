"""How long a worker that died stays away. Pure."""

import random
from collections.abc import Callable

FIRST_S = 0.5
CAP_S = 30.0
STEADY_S = 60.0
"""A worker that lived as long as this had no trouble of its own: the next death counts as the first."""


class Backoff:
    """Rests of one worker's place: none at first, then longer and longer, so that a crash loop costs little."""

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        """Begin without a death.

        Args:
            uniform: Draws a number between two.
        """
        self._uniform = uniform
        self._deaths = 0

    def next_s(self, lived_s: float) -> float:
        """Count a death.

        Args:
            lived_s: Seconds the worker lived.

        Returns:
            Seconds to wait; jittered, so that workers which died of the same cause do not come back in step.
        """
        self._deaths = 1 if lived_s >= STEADY_S else self._deaths + 1
        if self._deaths == 1:
            return 0.0
        ceiling = min(CAP_S, FIRST_S * 2.0 ** min(self._deaths - 1, 16))
        return self._uniform(ceiling / 2, ceiling)
