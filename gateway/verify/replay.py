"""Single use of websocket tokens (`websocket.single_use`): the first handshake that brings one uses it up.

With `redis.url` all processes remember together, in Redis by `SET NX PX`; without, this process alone, and then it is
the only one. Nobody is let in on a guess: while Redis is away, or memory is full, the answer is 503.
"""

import time
from collections.abc import Callable
from typing import Protocol

from gateway.errors import CredentialRejected, VerifierUnavailable


class ReplayGuard(Protocol):
    """Remembers which tokens were used."""

    async def use(self, token: str, expires_at: float) -> None:
        """Use a token up.

        Args:
            token: Its id (`jti`).
            expires_at: Unix seconds; it need not be remembered longer.

        Raises:
            CredentialRejected: `minted_replayed`: it was used before.
            VerifierUnavailable: `replay_guard_unavailable`: that cannot be told now.
        """

    async def close(self) -> None:
        """Let go of connections."""


class MemoryReplayGuard:
    """Remembers in this process."""

    def __init__(self, entries: int, clock: Callable[[], float] = time.time) -> None:
        """Bound the memory.

        Args:
            entries: The most tokens that are remembered at a time; then nobody else gets in until some have expired.
            clock: Unix seconds.
        """
        self._entries = entries
        self._clock = clock
        self._used: dict[str, float] = {}

    async def use(self, token: str, expires_at: float) -> None:
        """Use a token up; see `ReplayGuard`."""
        if token in self._used:
            raise CredentialRejected("minted_replayed")
        if len(self._used) >= self._entries:
            now = self._clock()
            self._used = {used: until for used, until in self._used.items() if until > now}
            if len(self._used) >= self._entries:
                raise VerifierUnavailable("replay_guard_unavailable")
        self._used[token] = expires_at

    async def close(self) -> None:
        """Nothing is held."""
