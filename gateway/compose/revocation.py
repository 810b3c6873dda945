"""Composition of what tells changes: to this process alone, or to all that share a Redis and a master key."""

from typing import TYPE_CHECKING

from config.model import Settings
from gateway.compose.records import master_key
from gateway.parts import Parts
from gateway.revocation.bus import Bus
from gateway.revocation.endings import Endings
from gateway.revocation.envelope import Envelope
from gateway.revocation.revocations import LocalRevocations, Revocations

if TYPE_CHECKING:
    from gateway.shared_state.client import SharedRedis


async def revocations(parts: Parts, settings: Settings, shared: "SharedRedis | None", endings: Endings) -> Revocations:
    """Make what tells changes, or carry it over.

    Raises:
        ComposeFailed: There is no master key.
    """
    key = master_key(settings)
    if shared is None:

        async def make_local() -> LocalRevocations:
            return LocalRevocations(endings)

        return await parts.hold("revocations", (endings,), make_local)

    async def start_bus() -> Bus:
        bus = Bus(shared, Envelope(key), endings)
        await bus.start()
        return bus

    return await parts.hold("revocations", (shared, key, endings), start_bus, Bus.close)
