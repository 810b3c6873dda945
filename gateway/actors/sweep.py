"""Dropping beliefs by what nobody can look them up by: an organization, a session, Clerk's id of a person.

That takes a walk over the whole near cache. A small one is walked at once, a large one some thousands at a time, so
that requests have their turn between; names that come meanwhile wait together for the next walk.
"""

import asyncio
from collections.abc import Set

from gateway.actors.beliefs import KnownCaller, Memory
from provisioning.background import end_tasks

AT_ONCE = 5000
"""A few milliseconds."""


class Sweep:
    """Walks over what is known of callers."""

    def __init__(self, known: Memory[bytes, KnownCaller]) -> None:
        self._known = known
        self._names: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def drop(self, *names: str) -> None:
        """Believe nothing more of whoever has to do with one of these.

        Args:
            names: `org_…` of ours, `sess_…`, `user_…`; who may not be known by a name as well is not meant by it.
        """
        self._names.update(names)
        if len(self._known) <= AT_ONCE:
            names_now, self._names = self._names, set()
            for known in self._known.values():
                _judge(known, names_now)
        elif self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._walk())

    async def close(self) -> None:
        """End the walk under way."""
        await end_tasks(self._task)

    async def _walk(self) -> None:
        while self._names:
            names, self._names = self._names, set()
            for number, known in enumerate(list(self._known.values()), 1):
                _judge(known, names)
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)


def _judge(known: KnownCaller, names: Set[str]) -> None:
    principal = known.principal
    impersonator = principal.impersonator
    if (
        principal.subject in names
        or principal.session_id in names
        or known.caller.actor.organization_id in names
        or (impersonator is not None and impersonator.session_id in names)
    ):
        known.believed_until = 0.0
