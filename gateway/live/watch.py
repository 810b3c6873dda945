"""Ends websockets of people whose rights or API tokens ended elsewhere: in another process, by an operator, in records.

A tunnel shows no credential after its handshake, so nobody looks at the records on its behalf but this. What this
process changes itself, or sees on a request's way, ends at once (`registry.py`); so does what others tell it. While
they cannot, it looks as often as anything is believed then.
"""

import asyncio
from contextlib import suppress

from gateway.actors.actor import Actor
from gateway.credentials.kinds import CredentialKind
from gateway.live.registry import Registry
from provisioning.background import end_tasks
from provisioning.endings import Endings, Presence
from provisioning.errors import DatabaseUnavailable
from provisioning.ids import is_id

PEOPLE = 1000
"""How many one query asks for."""
SHORTEST_S = 0.5


class Watch:
    """Asks for all who have a websocket open, a little more often than beliefs live."""

    def __init__(self, registry: Registry, endings: Endings, near_ttl_s: float, degraded_ttl_s: float) -> None:
        """Prepare; `start` begins.

        Args:
            registry: Of what is open.
            endings: Tells what may not go on.
            near_ttl_s: `cache.near_ttl`.
            degraded_ttl_s: `cache.degraded_ttl`, for while the registry is out of touch.
        """
        self._registry = registry
        self._endings = endings
        self._near_s = max(SHORTEST_S, 0.8 * near_ttl_s)
        self._degraded_s = min(self._near_s, max(SHORTEST_S, 0.8 * degraded_ttl_s))
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.get_running_loop().create_task(self._look_again_and_again())

    async def look(self) -> int:
        """Look once; gives how many websockets were ended.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be asked now; what is open stays.
        """
        people, ended = list(set(self._present())), 0
        for start in range(0, len(people), PEOPLE):
            for over in await self._endings.of(people[start : start + PEOPLE]):
                ended += self._registry.end(user=over.user_id, organization=over.organization_id, token=over.token_id)
        return ended

    async def close(self) -> None:
        """Look no more."""
        await end_tasks(self._task)

    def _present(self) -> list[Presence]:
        return [
            # An agent is never an administrator, whatever its user is.
            Presence(
                actor.user_id,
                actor.organization_id,
                actor.role if actor.principal.kind is not CredentialKind.AGENT_TOKEN else None,
                _api_token(actor),
            )
            for actor in self._registry.actors()
            if actor.principal.kind is not CredentialKind.SYSTEM_TOKEN
        ]

    async def _look_again_and_again(self) -> None:
        doubted, looked = self._registry.doubted, True
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._near_s if looked and self._registry.in_touch else self._degraded_s):
                    await doubted.wait()
            doubted.clear()
            looked = False
            with suppress(DatabaseUnavailable):
                await self.look()
                looked = True


def _api_token(actor: Actor) -> str | None:
    """Of ours: Clerk's own tokens are not in our records."""
    token_id = actor.principal.token_id
    return token_id if token_id is not None and is_id("atk", token_id) else None
