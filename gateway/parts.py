"""What the rooms of one set of settings are made of: carried into the next set where it may be, else closed, in time.

A reload builds new rooms beside the old ones. Both may hold the same part, so a part knows how many hold it; and a
request that waits inside old rooms may still need theirs, so rooms are let go only when nobody is inside.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import structlog

T = TypeVar("T")
_log = structlog.get_logger()


class ComposeFailed(Exception):
    """Settings that are right, and yet cannot be served under now; the text says why, for operators."""


class Lease:
    """Counts who waits inside the rooms of one set of settings; entered as a context.

    Only what waits for signing keys or records enters. A request that is being forwarded does not: connections to
    upstreams end by themselves (`Upstream.retire`), and one may stream for hours.
    """

    def __init__(self) -> None:
        self.inside = 0
        self._left = asyncio.Event()

    def __enter__(self) -> None:
        self.inside += 1

    def __exit__(self, *_: object) -> None:
        self.inside -= 1
        self._left.set()

    async def over(self) -> None:
        """Wait until nobody is inside; only for rooms that nobody enters any more."""
        while self.inside:
            self._left.clear()
            await self._left.wait()


@dataclass(slots=True)
class _Part(Generic[T]):
    key: object
    value: T
    close: Callable[[T], Awaitable[None]] | None
    holders: int = 0


class Parts:
    """The parts of one set of settings."""

    def __init__(self, before: "Parts | None" = None) -> None:
        self._before = before._parts if before is not None else {}
        self._parts: dict[str, _Part[Any]] = {}

    @classmethod
    @asynccontextmanager
    async def after(cls, before: "Parts | None") -> AsyncIterator["Parts"]:
        """Collect parts inside the context; those of `before` are at hand, and an error lets go of all."""
        parts = cls(before)
        try:
            yield parts
        except BaseException:
            await parts.release()
            raise
        finally:
            parts._before = {}  # else every set would keep all those before it

    async def hold(
        self,
        name: str,
        key: object,
        make: Callable[[], Awaitable[T]],
        close: Callable[[T], Awaitable[None]] | None = None,
    ) -> T:
        """Take the part of this name over, or make it; whoever asks again in the same set is given the same.

        Args:
            name: What it is; one in a set.
            key: What it is made of: the old part stays when it was made of the same.
            make: Makes it, ready for use.
            close: Ends it, once nobody holds it.
        """
        part = self._parts.get(name)
        if part is not None and part.key == key:
            return cast(T, part.value)
        part = self._before.get(name)
        if part is None or part.key != key:
            part = _Part(key, await make(), close)
        part.holders += 1
        self._parts[name] = part
        return cast(T, part.value)

    async def release(self) -> None:
        """Let go of all; what nobody else holds is closed, the last made first."""
        parts, self._parts = self._parts, {}
        for name, part in reversed(parts.items()):
            part.holders -= 1
            if part.holders or part.close is None:
                continue
            try:
                await part.close(part.value)
            except Exception as error:  # noqa: BLE001 - the others must be closed all the same
                _log.error("a part could not be closed", part=name, exc_info=error)
