"""Telling a change: applied here before anything is awaited, and told to the other processes beside the request."""

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from gateway.revocation.changes import AnythingChanged, Change, Message
from gateway.revocation.endings import Endings
from gateway.revocation.lag import Lag
from gateway.revocation.recent import RecentChanges

AT_ONCE = 100
"""Changes of one message."""
MOST_UNTOLD = 1000
"""Changes kept for when Redis is back; more become one: anything."""


class Revocations(Protocol):
    """Where changes are told, and what is known of those of others.

    Attributes:
        recent: Changes heard of, by version.
        lag: How late those of others were.
    """

    recent: RecentChanges
    lag: Lag

    @property
    def whole(self) -> bool:
        """Whether everything told by others is heard now."""

    def tell(self, *changes: Change) -> None:
        """Apply changes here, at once, and tell the others; never raises, and never waits."""


class LocalRevocations:
    """Of one process that has no others beside it."""

    def __init__(self, endings: Endings) -> None:
        self._endings = endings
        self.recent = RecentChanges()
        self.lag = Lag()
        endings.follow(self, in_touch=True)

    @property
    def whole(self) -> bool:
        """It misses nothing."""
        return True

    def tell(self, *changes: Change) -> None:
        """Apply changes."""
        for change in changes:
            self._endings.apply(change)
        self.recent.hear(self.recent.version + 1, changes)


class Untold:
    """Changes that Redis has not taken yet, in order. Pure.

    Attributes:
        sender: Name of this process among the others, random.
        number: Of the last message.
    """

    def __init__(self, sender: str, clock: Callable[[], float] = time.time) -> None:
        self.sender = sender
        self.number = 0
        self._clock = clock
        self._changes: deque[Change] = deque()
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._changes)

    def add(self, *changes: Change) -> None:
        """Keep these."""
        if not self._changes:
            self._since = self._clock()
        self._changes.extend(changes)
        if len(self._changes) > MOST_UNTOLD:
            self._changes = deque((AnythingChanged(),))

    def message(self) -> Message:
        """Make one of what is kept."""
        self.number += 1
        changes = tuple(self._changes.popleft() for _ in range(min(AT_ONCE, len(self._changes))))
        return Message(self.sender, self.number, self._since, changes)

    def beat(self) -> Message:
        """Make a sign of life."""
        self.number += 1
        return Message(self.sender, self.number, self._clock())

    def put_back(self, message: Message) -> None:
        """It was not taken: its changes come first again."""
        self._changes.extendleft(reversed(message.changes))
        self._since = message.at
        self.add()
