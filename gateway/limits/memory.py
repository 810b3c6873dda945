"""Counting in this process: a sliding log with a bounded number of entries, in bounded memory. Never waits.

`shared.py` does the same inside Redis, step by step.
"""

import time
from array import array
from collections.abc import Callable
from math import floor

from cachebox import LRUCache

from gateway.actors.beliefs import Memory
from gateway.limits.rules import Rule, Verdict


class MemoryCounter:
    """Counts by keys; the key that was idle longest is forgotten first."""

    def __init__(self, entries: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin empty.

        Args:
            entries: Most keys.
            clock: Seconds that are never set back.
        """
        self._logs: Memory[bytes, array[float]] = LRUCache(entries)
        self._clock = clock

    def take(self, key: bytes, rule: Rule) -> Verdict:
        """Count one more, if it may pass."""
        log = self._logs.get(key)
        if log is None:
            log = array("d")
            self._logs.insert(key, log)
        return take(log, rule, self._clock())

    def __len__(self) -> int:
        return sum(1 for _ in self._logs.values())


def take(log: "array[float]", rule: Rule, now: float) -> Verdict:
    """Count one more in a log, if it may pass.

    Whatever order they come in, no more than `rule.limit` pass within any time as long as the window: an entry counts
    in full until its last request is that old.

    Args:
        log: Pairs in order: the moment of the last request of an entry, and how many they are. Changed in place.
        rule: What passes.
        now: Seconds, never earlier than those in the log.
    """
    old = 0
    while old < len(log) and log[old] <= now - rule.window_s:
        old += 2
    del log[:old]
    used = int(sum(log[1::2]))
    if used >= rule.limit:
        return Verdict(False, 0, log[0] + rule.window_s - now)
    segment = rule.segment_s
    if segment and log and floor(log[-2] / segment) == floor(now / segment):
        log[-2] = now
        log[-1] += 1
    else:
        log.append(now)
        log.append(1)
    return Verdict(True, rule.limit - used - 1, log[0] + rule.window_s - now)
