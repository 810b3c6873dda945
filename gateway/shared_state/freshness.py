"""Whether something that was read at some version may still be so: what the tier asks of whoever hears of changes."""

from typing import Protocol


class Freshness(Protocol):
    """Hears of changes, wherever they are made (`gateway/revocation/`).

    Attributes:
        version: Of the last change that was heard of; it only grows.
        whole: Nothing can have been missed up to now.
    """

    @property
    def version(self) -> int:
        """See above."""

    @property
    def whole(self) -> bool:
        """See above."""

    def changed_since(self, version: int, *ids: str) -> bool:
        """Tell whether any of these may have changed after a version."""
