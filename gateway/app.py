"""The life of a process: what is started, in which order, and how it ends. What it is made of: `composition.py`."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from config.model import Settings
from config.values import Address
from config.watch import Source
from gateway.compose.outbox import OUTBOX_CONNECTIONS
from gateway.composition import Composition, Home, compose
from gateway.listen.aiohttp_connection import ON_ITS_WAY_S, LaneServer
from gateway.listen.aiohttp_lane import AiohttpLane
from gateway.listen.fast_lane import FastLane
from gateway.listen.listeners import Listeners
from gateway.listen.sockets import Sockets, address_of, bind_both
from gateway.live.registry import Registry
from gateway.reload import Reloader, reloading
from gateway.revocation.endings import Endings
from gateway.telemetry.admin import Watched, admin_application
from gateway.telemetry.collectors import StateCollector
from gateway.telemetry.metrics import Metrics
from gateway.upstream.tunnel import Tunnels
from provisioning.database.embedded import EmbeddedPostgres
from provisioning.database.migrate import ensure

_log = structlog.get_logger()
DATABASE_WAIT_S = 30.0
"""Seconds `serve` waits at its start for a PostgreSQL that does not answer yet."""


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that answers.

    Attributes:
        listen: Where clients connect; the port is the real one also when the settings say 0.
        admin: Where operators connect.
        reloader: Takes other settings into force.
    """

    listen: Address
    admin: Address
    reloader: Reloader


@dataclass(frozen=True, slots=True)
class Working:
    """One of several workers: it answers clients, and leaves operators to its supervisor.

    Attributes:
        doors: What it listens on; sockets can be added and taken away.
        watched: What operators would ask.
        reloader: Takes other settings into force.
    """

    doors: Listeners
    watched: Watched
    reloader: Reloader


async def serve(settings: Settings, source: Source, *, watch: bool = True) -> None:
    """Run until SIGTERM or SIGINT; then finish what is under way, for `drain_grace` at most.

    Args:
        settings: What `source` gave.
        source: Read again on SIGHUP.
        watch: Also read it again by itself when it changed.
    """
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)  # before anything is slow: unhandled, it would end the process
    async with running(settings) as gateway:
        settle_garbage()
        _log.info("listening", listen=str(gateway.listen), admin=str(gateway.admin), pid=os.getpid())
        async with reloading(gateway.reloader, source, reload, watch=watch):
            await stop.wait()
        _log.info("draining", grace_s=gateway.reloader.current.settings.drain_grace)


def settle_garbage() -> None:
    """Keep the collector off the request path: what was loaded stays, and requests leave hardly any cycles.

    With the defaults every 700 net allocations start a collection; figures in docs/performance.md.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@asynccontextmanager
async def running(settings: Settings, sockets: Sockets | None = None) -> AsyncIterator[Running]:
    """Run a gateway inside the context.

    Args:
        settings: Everything that can be set.
        sockets: What to listen on, bound by the caller, who also closes them; None binds what the settings say.

    Raises:
        OSError: A port is taken, or a certificate cannot be used.
        DatabaseUnavailable: PostgreSQL did not answer within DATABASE_WAIT_S.
        MigrationFailed: The schema is behind and cannot be, or may not be, migrated.
    """
    async with AsyncExitStack() as stack:
        if sockets is None:
            sockets = bind_both(settings.listen, settings.admin.listen)
            stack.callback(sockets.close)
        listen = address_of(sockets.public)
        database_url = await prepare_database(stack, settings)
        reloader = await _compose(stack, settings, listen, database_url)
        await start_admin(stack, sockets.admin, admin_application(_watched(reloader)))
        await _start_lane(stack, sockets.public, reloader)
        yield Running(listen, address_of(sockets.admin), reloader)


@asynccontextmanager
async def working(settings: Settings, listener: socket.socket, database_url: str) -> AsyncIterator[Working]:
    """Run what each of several workers runs, over a database that is prepared; errors are those of `running`.

    Args:
        settings: As for `running`.
        listener: Bound; closed with the context.
        database_url: What `prepare_database` gave.
    """
    async with AsyncExitStack() as stack:
        reloader = await _compose(stack, settings, address_of(listener), database_url)
        doors = await _start_lane(stack, listener, reloader)
        yield Working(doors, _watched(reloader), reloader)


async def prepare_database(stack: AsyncExitStack, settings: Settings) -> str:
    """Reach PostgreSQL, or start our own, and bring its schema up to date.

    Returns:
        Its DSN.
    """
    config = settings.database
    if config.url is not None:
        url = config.url.get_secret_value()
        direct_url = config.direct_url.get_secret_value() if config.direct_url is not None else url
    else:
        if settings.data_dir is None:
            raise ValueError("an embedded database needs data_dir")
        connections = max(100, settings.workers * (config.pool_size + OUTBOX_CONNECTIONS) + 10)
        own = EmbeddedPostgres(Path(settings.data_dir), options={"max_connections": str(connections)})
        url = direct_url = (await stack.enter_async_context(own)).url
    await ensure(direct_url, automatic=config.auto_migrate, wait_s=DATABASE_WAIT_S)
    return url


async def _compose(stack: AsyncExitStack, settings: Settings, listen: Address, database_url: str) -> Reloader:
    """Build everything between the sockets; it is closed with the stack."""
    session = await stack.enter_async_context(
        aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)
    )
    tunnels = Tunnels(max_age_s=settings.websocket.max_age, idle_timeout_s=settings.websocket.idle_timeout)
    live = Registry()
    home = Home(listen, session, tunnels, live, Endings(live), Metrics())
    composition = await compose(settings, database_url, home)
    reloader = Reloader(composition, home, database_url if settings.database.url is None else None)
    stack.push_async_callback(reloader.close)
    return reloader


def _watched(reloader: Reloader) -> Watched:
    registry = CollectorRegistry()
    registry.register(reloader.current.pipeline.rooms.metrics)
    registry.register(StateCollector(lambda: reloader.current.sources, lambda: reloader.retired))
    registry.register(reloader.reloads)

    async def database_answers() -> bool:
        return await reloader.current.sources.database_answers()

    async def keys_known() -> bool:
        return await reloader.current.sources.keys_known()

    return Watched(registry, {"database": database_answers, "signing_keys": keys_known})


async def start_admin(stack: AsyncExitStack, listener: socket.socket, app: web.Application) -> None:
    """Answer operators until the stack ends."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listener).start()


async def _start_lane(stack: AsyncExitStack, listener: socket.socket, reloader: Reloader) -> Listeners:
    """Listen: the last thing to start, and the first to end, with what is under way finished before."""
    if aiohttp.http_parser.HttpRequestParser is aiohttp.http_parser.HttpRequestParserPy:
        raise RuntimeError("aiohttp was installed without its C parser; install its wheel: the two differ in grammar")
    first = reloader.current
    limits, scheme = first.settings.limits, "http" if first.tls is None else "https"
    lane = AiohttpLane(first.pipeline, first.refusals, limits, scheme)
    unusual = LaneServer(lane, limits)
    fast = FastLane(first.pipeline, first.refusals, limits, scheme, unusual) if first.settings.fast_lane else None
    loop = asyncio.get_running_loop()
    doors = Listeners(
        fast or unusual,
        ssl=first.tls,
        ssl_handshake_timeout=limits.head_timeout if first.tls is not None else None,
        # For a slow client to take its last answer, and to say goodbye.
        ssl_shutdown_timeout=limits.keepalive if first.tls is not None else None,
    )
    await doors.open(listener)

    def adopt(new: Composition) -> None:
        for taker in (lane, fast):
            if taker is not None:
                taker.adopt(new.pipeline, new.refusals, new.settings.limits)
        unusual.adopt(new.settings.limits)

    async def drain() -> None:
        grace_s = reloader.current.settings.drain_grace
        until = loop.time() + grace_s
        await doors.end(min(ON_ITS_WAY_S, grace_s))
        await asyncio.sleep(0)  # let what was accepted a moment ago begin
        unusual.pre_shutdown()
        if fast is not None:  # first, because it may still hand connections over
            await fast.drain(max(0.0, until - loop.time()))
        await unusual.shutdown(max(0.0, until - loop.time()))
        await reloader.current.sources.tunnels.drain(until)  # last, because the lanes can still make tunnels

    reloader.adopt, reloader.listener_tls = adopt, first.tls
    stack.push_async_callback(drain)
    return doors
