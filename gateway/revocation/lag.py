"""How late changes made elsewhere were heard of. Counted here, rendered by `telemetry/collectors.py`."""

from bisect import bisect_left

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Lag:
    """A histogram.

    Attributes:
        counts: By upper bound, the last one without.
        sum_s: Of all.
    """

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def observe(self, lag_s: float) -> None:
        """Count one; clocks of two machines differ, so less than nothing is nothing."""
        lag_s = max(0.0, lag_s)
        self.counts[bisect_left(BOUNDS_S, lag_s)] += 1
        self.sum_s += lag_s
