"""Single use of websocket tokens, remembered in Redis for all processes; see `replay.py`."""

import secrets
import time
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import structlog

from gateway.errors import CredentialRejected, VerifierUnavailable
from gateway.shared_state.errors import RedisUnavailable

if TYPE_CHECKING:
    from gateway.shared_state.client import SharedRedis

_PREFIX = "gw:used:"
_log = structlog.get_logger()


class RedisReplayGuard:
    """Remembers in Redis, for all processes."""

    def __init__(self, shared: "SharedRedis", clock: Callable[[], float] = time.time) -> None:
        """Prepare.

        Args:
            shared: The way to Redis, closed by its owner.
            clock: Unix seconds.
        """
        self._shared = shared
        self._clock = clock

    async def use(self, token: str, expires_at: float) -> None:
        """Use a token up; see `ReplayGuard`."""
        life_ms = max(1, int((expires_at - self._clock()) * 1000)) + 1000
        key = _PREFIX + sha256(token.encode()).hexdigest()
        # A command whose answer was lost with its connection is sent again, and must know its own first sending.
        mark = secrets.token_bytes(8)

        async def first(client: Any) -> bool:
            return bool(await client.set(key, mark, nx=True, px=life_ms)) or await client.get(key) == mark

        try:
            is_first = await self._shared.run(first)
        except RedisUnavailable as error:
            _log.warning("redis does not answer", cause=error.reason)
            raise VerifierUnavailable("replay_guard_unavailable") from error
        if not is_first:
            raise CredentialRejected("minted_replayed")

    async def close(self) -> None:
        """Nothing is held: the connections are their owner's."""
