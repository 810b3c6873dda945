"""Composition of what several processes share: the way to Redis, where one is set, and what they remember there."""

import asyncio
from hashlib import sha256
from importlib import import_module
from typing import TYPE_CHECKING, cast

from config.model import Settings
from gateway.compose.records import master_key
from gateway.parts import Parts
from gateway.revocation.revocations import Revocations
from gateway.shared_state.facts import FORMS
from gateway.shared_state.tier import SharedTier
from gateway.shared_state.values import SealedValues

if TYPE_CHECKING:
    from gateway.shared_state.client import SharedRedis


async def shared_redis(parts: Parts, settings: Settings) -> "SharedRedis | None":
    """Make the way to Redis, or carry it over; nothing is asked yet. None without `redis.url`.

    Raises:
        OSError: `redis.ca_file` cannot be read.
    """
    config = settings.redis
    if config.url is None:
        return None
    url, ca_file = config.url.get_secret_value(), config.ca_file
    authorities = await asyncio.to_thread(ca_file.read_text, "ascii") if ca_file is not None else None

    async def open_redis() -> "SharedRedis":
        # redis-py is large: read off the loop, and by nobody who has no Redis.
        module = await asyncio.to_thread(import_module, "gateway.shared_state.client")
        return cast("SharedRedis", await asyncio.to_thread(module.SharedRedis, url, authorities))

    async def close(shared: "SharedRedis") -> None:
        await shared.close()

    return await parts.hold("redis", (url, authorities), open_redis, close)


async def shared_tier(parts: Parts, settings: Settings, revoking: Revocations) -> SharedTier | None:
    """Make what replicas remember together, or carry it over. None without `redis.url`.

    Args:
        parts: To hold it.
        settings: In force.
        revoking: Hears of changes made elsewhere.
    """
    redis = await shared_redis(parts, settings)
    if redis is None:
        return None
    key, digest, kept_s = master_key(settings), digest_of(settings), settings.cache.stale_if_error

    async def make() -> SharedTier:
        values = SealedValues(key, digest)
        return await SharedTier.opened(redis, values, _Heard(revoking), kept_s=kept_s)

    return await parts.hold("shared tier", (redis, key, digest, kept_s, revoking), make, SharedTier.close)


def digest_of(settings: Settings) -> bytes:
    """Digest what decides what shared values mean: whose subjects they are about, and the form they are written in.

    The same on every replica: nothing of this machine is in it, and no secret.
    """
    clerk = settings.clerk
    meant = repr((sorted(clerk.issuer), clerk.instance_id, settings.provisioning.model_dump(mode="json")))
    return sha256(FORMS + meant.encode()).digest()


class _Heard:
    """What the tier asks of whoever hears of changes (`Freshness`)."""

    def __init__(self, revoking: Revocations) -> None:
        self._revoking = revoking

    @property
    def version(self) -> int:
        return self._revoking.recent.version

    @property
    def whole(self) -> bool:
        return self._revoking.whole

    def changed_since(self, version: int, *ids: str) -> bool:
        return self._revoking.recent.changed_since(version, *ids)
