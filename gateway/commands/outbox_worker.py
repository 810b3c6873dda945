"""`gateway worker`: delivers the outbox, and nothing else, until SIGTERM. It opens no port; `serve` tells the depth."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack

import aiohttp
import structlog

from config.model import Settings
from gateway.app import prepare_database
from gateway.compose.outbox import new_outbox, opened
from provisioning.clerk_api import ClerkApi

_log = structlog.get_logger()


async def work(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; then let deliveries under way end, for `drain_grace` at most.

    Args:
        settings: Complete, with `database.url`.

    Raises:
        DatabaseUnavailable: PostgreSQL did not answer in time.
        MigrationFailed: The schema is behind and cannot be, or may not be, migrated.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        url = await prepare_database(stack, settings)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)
        )
        secret_key = settings.clerk.secret_key
        database = await opened(url, settings.database.acquire_timeout)
        stack.push_async_callback(database.close)
        clerk_api = ClerkApi(session, settings.clerk.api_url, secret_key.get_secret_value() if secret_key else None)
        stack.push_async_callback(clerk_api.close)
        outbox = new_outbox(settings, database, url, session, clerk_api)
        outbox.start()
        _log.info("delivering", pid=os.getpid(), topics=outbox.topics)
        await stop.wait()
        _log.info("draining", grace_s=settings.drain_grace)
        await outbox.close(settings.drain_grace)
