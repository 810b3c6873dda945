"""Telling running gateways what a command changed, where they share a Redis."""

import asyncio
import secrets
import time
from importlib import import_module

from config.model import Settings
from gateway.revocation.changes import Change
from gateway.revocation.channel import Channel
from gateway.revocation.envelope import Envelope
from gateway.revocation.revocations import Untold
from gateway.shared_state.errors import RedisUnavailable

_LATE = "running gateways were not told ({}): they see it within cache.near_ttl"


async def told(settings: Settings, *changes: Change) -> tuple[str, ...]:
    """Tell them at once; gives lines for standard error: what hinders that. Without Redis nobody can be told."""
    config, key = settings.redis, settings.secrets.master_key
    if config.url is None:
        return ()
    if key is None:
        return (_LATE.format("secrets.master_key is not set"),)
    authorities = await asyncio.to_thread(config.ca_file.read_text, "ascii") if config.ca_file is not None else None
    shared = import_module("gateway.shared_state.client").SharedRedis(config.url.get_secret_value(), authorities)
    envelope, untold = Envelope(key.get_secret_value()), Untold(secrets.token_hex(8), time.time)
    untold.add(*changes)
    try:
        await Channel(shared, envelope.place).tell(envelope.seal(untold.message()), logged=True)
    except RedisUnavailable as error:
        return (_LATE.format(f"Redis: {error.reason}"),)
    finally:
        await shared.close()
    return ()
