"""Composition of upstreams: what each is made of, and making it."""

import asyncio
import hashlib
from pathlib import Path

from config.checks import urls_of
from config.model import Settings
from config.model import Upstream as UpstreamSettings
from gateway.tls import client_context
from gateway.upstream.address import parse_addresses
from gateway.upstream.pool import Upstream


def polled(settings: Settings) -> frozenset[str]:
    """Upstreams whose polling sessions stay in one place: each request of one may come on another connection."""
    if settings.workers > 1:
        return frozenset()
    return frozenset(name for name, config in settings.upstreams.items() if len(urls_of(config)) == 1)


def ingredients(config: UpstreamSettings) -> object:
    """What an upstream is made of: its settings, and the authorities in the file they name. Reads it: off the loop."""
    return config, hashlib.sha256(_contents(config.ca_file)).digest() if config.ca_file is not None else None


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # `client_context` says what is wrong with it


async def new_upstream(name: str, config: UpstreamSettings) -> Upstream:
    """Make one.

    Raises:
        OSError: Its authorities cannot be used.
    """
    urls = urls_of(config)
    tls = None
    if any(url.startswith("https:") for url in urls):
        tls = await asyncio.to_thread(client_context, config.ca_file, f"upstreams.{name}.ca_file")
    return Upstream(
        name,
        parse_addresses(urls, tls=tls, server_name=config.server_name),
        connect_timeout_s=config.connect_timeout,
        response_timeout_s=config.response_timeout,
        idle_timeout_s=config.idle_timeout,
        max_connections=config.max_connections,
        queue_timeout_s=config.queue_timeout,
    )
