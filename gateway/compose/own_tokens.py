"""Composition of what tokens of our own need: the ring that signs, who mints, who verifies, who remembers their use."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from config.model import Settings
from gateway.identity.minting import Minter
from gateway.identity.ring_settings import start_ring
from gateway.parts import Parts
from gateway.verify.minted import MintedTokens
from gateway.verify.redis_replay import RedisReplayGuard
from gateway.verify.replay import MemoryReplayGuard, ReplayGuard
from provisioning.database.pool import Database
from provisioning.key_ring import KeyRing

if TYPE_CHECKING:
    from gateway.shared_state.client import SharedRedis


@dataclass(frozen=True, slots=True)
class OwnTokens:
    """What is made of the settings.

    Attributes:
        replays: Uses websocket tokens up; None: each may be used until it expires.
    """

    ring: KeyRing
    verifier: MintedTokens
    minter: Minter
    replays: ReplayGuard | None


async def own_tokens(
    parts: Parts, settings: Settings, public_url: str, database: Database, shared: "SharedRedis | None"
) -> OwnTokens:
    """Make these, or carry them over.

    Raises:
        KeysUnopened: The ring's keys do not open under this master key.
    """
    lives, entries = settings.tokens, settings.cache.near_entries

    async def make_minter() -> Minter:
        return Minter(
            ring, public_url, websocket_life_s=lives.websocket_life, agent_life_s=lives.agent_life, entries=entries
        )

    async def make_guard() -> ReplayGuard:
        return MemoryReplayGuard(entries) if shared is None else RedisReplayGuard(shared)

    ring = await parts.hold(
        "key ring",
        (database, settings.secrets, settings.keys, lives.websocket_life, lives.agent_life, public_url),
        lambda: start_ring(settings, database, public_url),
        KeyRing.close,
    )
    made_of = (ring, public_url, lives.websocket_life, lives.agent_life, entries)
    minter = await parts.hold("minter", made_of, make_minter)
    replays = None
    if settings.websocket.single_use:  # carried over by all means: what was used up stays so
        replays = await parts.hold("replay guard", (shared, entries), make_guard, _close_guard)
    return OwnTokens(ring, MintedTokens(ring, public_url, settings.clerk.issuer, time.time), minter, replays)


async def _close_guard(guard: ReplayGuard) -> None:
    await guard.close()
