"""Composition of flags: the provider the settings name, started, and who tells what it says."""

import asyncio
from typing import TYPE_CHECKING

from config.model import Flags, Settings
from gateway.flags.provider import DefinitionsInvalid, FlagProvider
from gateway.flags.telling import FlagTeller, NoProvider
from gateway.parts import ComposeFailed, Parts

if TYPE_CHECKING:
    from gateway.shared_state.client import SharedRedis


async def flag_teller(parts: Parts, settings: Settings, shared: "SharedRedis | None") -> FlagTeller:
    """Make it, or carry it over with its provider and all it remembers.

    Args:
        parts: To hold them.
        settings: Complete.
        shared: The way to Redis, for one poller of the fleet.

    Raises:
        ComposeFailed: There are definitions, and they are wrong.
    """
    flags = settings.flags if settings.flags is not None else Flags()

    async def make_provider() -> FlagProvider:
        provider = await asyncio.to_thread(provider_of, settings, flags, shared)
        try:
            await provider.start()
        except BaseException as error:
            await provider.close()
            if isinstance(error, DefinitionsInvalid):
                raise ComposeFailed(str(error)) from error
            raise
        return provider

    async def make_teller() -> FlagTeller:
        return FlagTeller(flags.declare, provider, settings.cache.near_entries)

    written = repr(flags)  # as values, defaults that are told differently are the same: 1 == True
    made_of = (written, settings.posthog, shared, settings.secrets.master_key)
    provider = await parts.hold("flag provider", made_of, make_provider, _close)
    return await parts.hold("flags", (provider, written, settings.cache.near_entries), make_teller)


async def _close(provider: FlagProvider) -> None:
    await provider.close()


def provider_of(settings: Settings, flags: Flags, shared: "SharedRedis | None") -> FlagProvider:
    """Make the provider the settings name. Only what is configured is imported: call it off the loop."""
    if not flags.declare:
        return NoProvider()
    if flags.provider == "posthog":
        return _posthog(settings, flags, shared)
    if flags.provider == "openfeature" and flags.openfeature is not None:
        from gateway.flags.openfeature import OpenFeatureFlags

        return OpenFeatureFlags(flags.openfeature, flags.declare)
    if flags.file is None:
        return NoProvider()
    from gateway.flags.file import FileFlags

    return FileFlags(flags.file)


def _posthog(settings: Settings, flags: Flags, shared: "SharedRedis | None") -> FlagProvider:
    from gateway.flags.copies import Copies, NoCopies, RedisCopies
    from gateway.flags.posthog import PosthogFlags, Source

    posthog, master_key = settings.posthog, settings.secrets.master_key
    if posthog is None or posthog.secret_key is None:
        return NoProvider()  # `checks.py` refuses this
    source = Source(posthog.host, posthog.project_key.get_secret_value(), posthog.secret_key.get_secret_value())
    copies: Copies = NoCopies()
    if shared is not None and master_key is not None:
        copies = RedisCopies(shared, master_key.get_secret_value(), f"{source.host}\n{source.project_key}")
    json_names = [name for name, flag in flags.declare.items() if flag.type == "json"]
    return PosthogFlags(source, flags.declare, json_names, copies)
