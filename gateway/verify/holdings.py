"""Which digests caches hold for whom, so that all of somebody's can be dropped at once. Pure, and bounded by itself."""

from collections import OrderedDict
from typing import Any, Protocol

_LOOKED_AT = 2  # owners per addition: every one of them comes round while half as many are added


class DigestCache(Protocol):
    """A cache whose keys are digests; it forgets by itself whatever it likes."""

    def __contains__(self, digest: bytes) -> bool:
        """Tell whether it holds this."""

    def pop(self, digest: bytes, default: Any = None) -> Any:
        """Drop this, if it is there."""


class Holdings:
    """An index over caches, from owners to digests.

    The caches never tell what they let go, so each addition looks at the two owners that were looked at longest ago
    and leaves out what no cache holds any more. Nothing that a cache still holds is ever left out.
    """

    def __init__(self) -> None:
        self._caches: list[DigestCache] = []
        self._of: OrderedDict[str, set[bytes]] = OrderedDict()

    def __len__(self) -> int:
        """Digests known, also of things that caches let go lately."""
        return sum(map(len, self._of.values()))

    def watch(self, *caches: DigestCache) -> None:
        """Count what these hold."""
        self._caches += caches

    def add(self, owner: str, digest: bytes) -> None:
        """Say whose a digest is, before or after a cache takes it, but without waiting between the two."""
        for _ in range(min(_LOOKED_AT, len(self._of))):
            oldest, digests = self._of.popitem(last=False)
            held = {one for one in digests if self._is_held(one)}
            if held:
                self._of[oldest] = held
        self._of.setdefault(owner, set()).add(digest)

    def forget(self, owner: str) -> None:
        """Drop all that caches hold for somebody."""
        for digest in self._of.pop(owner, ()):
            for cache in self._caches:
                cache.pop(digest, None)

    def _is_held(self, digest: bytes) -> bool:
        return any(digest in cache for cache in self._caches)
