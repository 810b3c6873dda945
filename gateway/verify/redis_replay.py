"""Single use of websocket tokens, remembered in Redis for all processes; see `replay.py`."""

import time
from collections.abc import Callable
from hashlib import sha256

import redis
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import RedisError

from gateway.errors import CredentialRejected, VerifierUnavailable

DEADLINE_S = 0.25
_PREFIX = "actorgate:used:"
_log = structlog.get_logger()


class RedisReplayGuard:
    """Remembers in Redis, for all processes."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        """Prepare; the first use connects.

        Args:
            url: Of Redis.
            clock: Unix seconds.
        """
        self._redis: Redis = Redis.from_url(
            url,
            protocol=2,
            driver_info=DriverInfo(lib_version=redis.__version__),  # else each connection reads it from disk
            socket_timeout=DEADLINE_S,
            socket_connect_timeout=DEADLINE_S,
            retry=Retry(NoBackoff(), 0),  # a second try could find its own first one
        )
        self._clock = clock

    async def use(self, token: str, expires_at: float) -> None:
        """Use a token up; see `ReplayGuard`."""
        life_ms = max(1, int((expires_at - self._clock()) * 1000)) + 1000
        key = _PREFIX + sha256(token.encode()).hexdigest()
        try:
            first = await self._redis.set(key, b"1", nx=True, px=life_ms)
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("redis does not answer", cause=type(error).__name__)
            raise VerifierUnavailable("replay_guard_unavailable") from error
        if not first:
            raise CredentialRejected("minted_replayed")

    async def close(self) -> None:
        """Close connections."""
        await self._redis.aclose()
