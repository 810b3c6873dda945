"""Which changes were heard of lately, by version: whether what was read at a version may still be so. Pure."""

from collections import Counter, OrderedDict
from collections.abc import Iterable

from gateway.revocation.changes import AnythingChanged, Change, ids_of

MOST = 100_000


class RecentChanges:
    """The last version at which each id changed.

    Attributes:
        version: Of the last change that was heard of.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._changed: OrderedDict[str, int] = OrderedDict()
        self._foreseen: Counter[str] = Counter()
        self._floor = 0
        self.version = 0

    def start(self, version: int) -> None:
        """Begin at a version; nothing is known of what was before it."""
        self.version = self._floor = version
        self._changed.clear()

    def hear(self, version: int, changes: Iterable[Change]) -> None:
        """Note changes that became a version."""
        self.version = version
        for change in changes:
            if isinstance(change, AnythingChanged):
                self._floor = version
            for name in ids_of(change):
                self._changed[name] = version
                self._changed.move_to_end(name)
        while len(self._changed) > self._most:
            self._floor = max(self._floor, self._changed.popitem(last=False)[1])

    def foresee(self, changes: Iterable[Change]) -> None:
        """Note changes of our own that have no version yet: nothing counts about those they name until they have."""
        self._foreseen.update(name for change in changes for name in ids_of(change))

    def came_true(self, changes: Iterable[Change]) -> None:
        """They have one now; `hear` was told which."""
        self._foreseen -= Counter(name for change in changes for name in ids_of(change))

    def changed_since(self, version: int, *ids: str) -> bool:
        """Tell whether any of these may have changed after a version."""
        if version < self._floor:
            return True
        return any(name in self._foreseen or self._changed.get(name, -1) > version for name in ids)
