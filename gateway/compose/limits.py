"""Composition of rate limits; nothing is made where none are set."""

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, cast

from config.model import Settings
from gateway.compose.records import master_key
from gateway.limits.keys import Keys
from gateway.limits.limiter import Limiter, SharedCounter
from gateway.limits.memory import MemoryCounter
from gateway.limits.rules import compile_rules
from gateway.parts import Parts
from provisioning.sealing import derived_key

if TYPE_CHECKING:
    from gateway.shared_state.client import SharedRedis

_PURPOSE = "names of what rate limits count"


async def limiter_of(parts: Parts, settings: Settings, shared: "SharedRedis | None") -> Limiter | None:
    """Make what counts, or carry it over: a reload forgives nothing that was counted by limits it leaves alone.

    Raises:
        ComposeFailed: There is no master key.
    """
    if not settings.rate_limits:
        return None
    entries = settings.cache.near_entries

    async def make_memory() -> MemoryCounter:
        return MemoryCounter(entries)

    async def make_shared() -> SharedCounter | None:
        if shared is None:
            return None
        module = await asyncio.to_thread(import_module, "gateway.limits.shared")
        return cast(SharedCounter, module.RedisCounter(shared))

    async def make() -> Limiter:
        keys = Keys(derived_key(master_key(settings), _PURPOSE))
        return Limiter(compile_rules(settings.rate_limits), keys, memory, counter, entries)

    memory = await parts.hold("counts of rate limits", (entries,), make_memory)
    counter = await parts.hold("shared counts", (shared,), make_shared)
    return await parts.hold("rate limits", (settings.rate_limits, settings.secrets, memory, counter), make)
