"""The fleet's copy of definitions in Redis, so that one process fetches for all and a start needs nobody else.

What is read there is authenticated: whoever can write to Redis cannot choose flags. Redis is a help, never a
need: while it is away every process fetches for itself.
"""

import asyncio
import hmac
import json
import zlib
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol, cast

import structlog

from gateway.shared_state.errors import RedisUnavailable
from provisioning.sealing import derived_key

if TYPE_CHECKING:
    from gateway.shared_state.client import SharedRedis

_KEPT_S = 30 * 24 * 3600
_MAC_BYTES = 32
_PURPOSE = "flag definitions"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Copy:
    """Definitions as they were fetched.

    Attributes:
        body: The answer's.
        etag: Empty: it had none.
        fetched_at: Unix seconds when they were last known to be current.
    """

    body: bytes
    etag: str
    fetched_at: float


class Copies(Protocol):
    """Where a copy is kept for others."""

    async def load(self) -> Copy | None:
        """Give the copy; None: there is none that can be trusted."""

    async def save(self, copy: Copy) -> None:
        """Keep a copy."""

    async def may_fetch(self, for_s: float) -> bool:
        """Whether it is this process that fetches now; nobody else does for that long."""


class NoCopies:
    """For a process that is alone."""

    async def load(self) -> Copy | None:
        """There is none."""
        return None

    async def save(self, copy: Copy) -> None:
        """Keep nothing."""

    async def may_fetch(self, for_s: float) -> bool:
        """Always."""
        del for_s
        return True


class RedisCopies:
    """Kept in Redis, compressed."""

    def __init__(self, shared: "SharedRedis", master_key: str, source: str) -> None:
        """Prepare; the first use connects.

        Args:
            shared: The way to Redis; whoever made it closes it.
            master_key: Whose derived key authenticates.
            source: Names what is copied; another source's copy is never taken for it.
        """
        self._shared = shared
        self._key = derived_key(master_key, _PURPOSE)
        name = hmac.new(self._key, source.encode(), sha256).hexdigest()
        self._copy_at = f"gw:flags:{name}"
        self._lock_at = f"gw:flags-poller:{name}"

    async def load(self) -> Copy | None:
        """See `Copies`."""
        try:
            kept = cast("bytes | None", await self._shared.run(lambda client: client.get(self._copy_at)))
        except RedisUnavailable as error:
            _away(error)
            return None
        return None if kept is None else await asyncio.to_thread(self._opened, kept)

    async def save(self, copy: Copy) -> None:
        """See `Copies`."""
        sealed = await asyncio.to_thread(self._sealed, copy)
        try:
            await self._shared.run(lambda client: client.set(self._copy_at, sealed, ex=_KEPT_S))
        except RedisUnavailable as error:
            _away(error)

    async def may_fetch(self, for_s: float) -> bool:
        """See `Copies`; everybody may while Redis is away."""
        life_ms = max(1, int(for_s * 900))
        try:
            return bool(await self._shared.run(lambda client: client.set(self._lock_at, b"1", nx=True, px=life_ms)))
        except RedisUnavailable as error:
            _away(error)
            return True

    def _sealed(self, copy: Copy) -> bytes:
        written = json.dumps([copy.etag, copy.fetched_at]).encode() + b"\n" + zlib.compress(copy.body)
        return self._mac(written) + written

    def _opened(self, kept: bytes) -> Copy | None:
        mac, written = kept[:_MAC_BYTES], kept[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(written)):
            _log.error("the copy of flags in redis is not ours")
            return None
        head, _, body = written.partition(b"\n")
        etag, fetched_at = json.loads(head)
        return Copy(zlib.decompress(body), etag, fetched_at)

    def _mac(self, written: bytes) -> bytes:
        return hmac.new(self._key, self._copy_at.encode() + b"\n" + written, sha256).digest()


def _away(error: RedisUnavailable) -> None:
    _log.warning("flags are not shared: redis does not answer", cause=error.reason)
