"""Composition root: builds every room from the settings, owns what lives, ends it in the reverse order."""

import asyncio
import gc
import math
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from config.checks import default_public_url, urls_of
from config.model import Settings
from config.publishable_key import parse_publishable_key
from config.values import Address
from gateway.actors.callers import Callers
from gateway.api.pages import Pages
from gateway.api.table import own_endpoints
from gateway.credentials.session_cookie import CookieRules
from gateway.edge.forwarded import ForwardingTrust
from gateway.listen.aiohttp_connection import ON_ITS_WAY_S, LaneServer
from gateway.listen.aiohttp_lane import AiohttpLane
from gateway.listen.fast_lane import FastLane
from gateway.listen.listeners import Listeners
from gateway.listen.refusals import Refusals
from gateway.listen.sockets import Sockets, address_of, bind_both
from gateway.pipeline import Pipeline, Rooms
from gateway.policy.cors import Cors
from gateway.policy.origins import compile_origins
from gateway.policy.routes import RouteTable
from gateway.telemetry.admin import Watched, admin_application
from gateway.telemetry.collectors import Sources, StateCollector
from gateway.telemetry.metrics import Metrics
from gateway.tls import client_context, server_context
from gateway.upstream.address import parse_addresses
from gateway.upstream.pool import Upstream
from gateway.upstream.tunnel import Tunnels
from gateway.verify.session import SessionRules
from gateway.verify.signing_keys import SigningKeys
from gateway.verify.verifier import Verifier
from provisioning.arrivals import Arrivals
from provisioning.clerk_api import ClerkApi
from provisioning.database.embedded import EmbeddedPostgres
from provisioning.database.migrate import pending, upgrade
from provisioning.database.pool import Database
from provisioning.errors import DatabaseUnavailable, MigrationFailed
from provisioning.first_sight import FirstSight
from provisioning.organizations import Organizations
from provisioning.users import Users

_log = structlog.get_logger()
_TOLD_EVERY_S = 5.0
DATABASE_WAIT_S = 30.0
"""Seconds `serve` waits at its start for a PostgreSQL that does not answer yet."""


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that answers.

    Attributes:
        listen: Where clients connect; the port is the real one also when the settings say 0.
        admin: Where operators connect.
    """

    listen: Address
    admin: Address


@dataclass(frozen=True, slots=True)
class Working:
    """One of several workers: it answers clients, and leaves operators to its supervisor.

    Attributes:
        doors: What it listens on; sockets can be added and taken away.
        watched: What operators would ask.
    """

    doors: Listeners
    watched: Watched


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; then finish what is under way, for `drain_grace` at most."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings) as gateway:
        settle_garbage()
        _log.info("listening", listen=str(gateway.listen), admin=str(gateway.admin), pid=os.getpid())
        await stop.wait()
        _log.info("draining", grace_s=settings.drain_grace)


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
        public_url = settings.public_url or default_public_url(settings, listen)
        database_url = await prepare_database(stack, settings)
        rooms, watched = await _build_rooms(stack, settings, public_url, database_url)
        await start_admin(stack, sockets.admin, admin_application(watched))
        await _start_lane(stack, sockets.public, rooms, settings, public_url)
        yield Running(listen, address_of(sockets.admin))


@asynccontextmanager
async def working(settings: Settings, listener: socket.socket, database_url: str) -> AsyncIterator[Working]:
    """Run what each of several workers runs, over a database that is prepared; errors are those of `running`.

    Args:
        settings: As for `running`.
        listener: Bound; closed with the context.
        database_url: What `prepare_database` gave.
    """
    async with AsyncExitStack() as stack:
        public_url = settings.public_url or default_public_url(settings, address_of(listener))
        rooms, watched = await _build_rooms(stack, settings, public_url, database_url)
        doors = await _start_lane(stack, listener, rooms, settings, public_url)
        yield Working(doors, watched)


async def prepare_database(stack: AsyncExitStack, settings: Settings) -> str:
    """Reach PostgreSQL, or start our own, and bring its schema up to date.

    Returns:
        Where it is.
    """
    config = settings.database
    if config.url is not None:
        url = config.url.get_secret_value()
        direct_url = config.direct_url.get_secret_value() if config.direct_url is not None else url
    else:
        if settings.data_dir is None:
            raise ValueError("an embedded database needs data_dir")
        connections = max(100, settings.workers * config.pool_size + 10)
        own = EmbeddedPostgres(Path(settings.data_dir), options={"max_connections": str(connections)})
        url = direct_url = (await stack.enter_async_context(own)).url
    await _migrated(direct_url, automatic=config.auto_migrate)
    return url


async def _migrated(url: str, *, automatic: bool) -> None:
    """Bring the schema up to date, or see that it is; waits for a PostgreSQL that does not answer yet."""
    began, told_at = time.monotonic(), -math.inf
    while True:
        try:
            if automatic:
                await upgrade(url)
            elif missing := await pending(url):
                raise MigrationFailed(f"the schema lacks {', '.join(missing)}; run `gateway migrate`")
        except DatabaseUnavailable as error:
            now = time.monotonic()
            if now - began >= DATABASE_WAIT_S:
                raise
            if now - told_at >= _TOLD_EVERY_S:
                told_at = now
                _log.warning("waiting for the database", cause=str(error.__cause__ or error))
            await asyncio.sleep(0.5)
        else:
            return


async def _build_rooms(
    stack: AsyncExitStack, settings: Settings, public_url: str, database_url: str
) -> tuple[Rooms, Watched]:
    clerk = settings.clerk
    config = settings.database
    database = Database(database_url, pool_size=config.pool_size, acquire_timeout=config.acquire_timeout)
    await stack.enter_async_context(database)
    keys = SigningKeys(
        clerk.jwks_url or "",
        ttl=clerk.jwks.ttl,
        cooldown=clerk.jwks.cooldown,
        stale_ceiling=clerk.jwks.stale_ceiling,
    )
    await keys.start()
    stack.push_async_callback(keys.close)
    session = await stack.enter_async_context(
        aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)
    )
    clerk_api = ClerkApi(session, clerk.api_url, clerk.secret_key.get_secret_value() if clerk.secret_key else None)
    first_sight = FirstSight(database, personal_organizations=settings.provisioning.personal_organizations)
    arrivals = Arrivals(first_sight, clerk_api)
    verifier = Verifier(keys, SessionRules.of(clerk), time.time)
    callers = Callers(verifier, arrivals, settings.cache)
    key = parse_publishable_key(clerk.publishable_key) if clerk.publishable_key is not None else None
    upstreams = {name: await _upstream(name, settings) for name in settings.upstreams}
    for upstream in upstreams.values():
        stack.callback(upstream.close)
    tunnels = Tunnels(max_age_s=settings.websocket.max_age, idle_timeout_s=settings.websocket.idle_timeout)
    metrics = Metrics()
    origins = settings.cors.origins if settings.cors.origins is not None else clerk.authorized_parties
    rooms = Rooms(
        hosts=frozenset(settings.hosts),
        trust=ForwardingTrust(settings.trusted_proxies),
        endpoints=own_endpoints(settings, Users(database), Organizations(database)),
        routes=RouteTable.compile(settings.routes),
        cookie_rules=CookieRules.of(key),
        callers=callers,
        cors=Cors(origins),
        issuers=frozenset(clerk.issuer),
        own_origins=compile_origins([public_url.rstrip("/"), *clerk.authorized_parties]),
        upstreams=upstreams,
        tunnels=tunnels,
        metrics=metrics,
        clock=time.time,
    )
    return rooms, _watched(metrics, Sources(keys, database, arrivals, clerk_api, callers, upstreams, tunnels))


def _watched(metrics: Metrics, sources: Sources) -> Watched:
    registry = CollectorRegistry()
    registry.register(metrics)
    registry.register(StateCollector(sources))
    return Watched(registry, {"database": sources.database_answers, "signing_keys": sources.keys_known})


async def _upstream(name: str, settings: Settings) -> Upstream:
    config = settings.upstreams[name]
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


async def start_admin(stack: AsyncExitStack, listener: socket.socket, app: web.Application) -> None:
    """Answer operators until the stack ends."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listener).start()


async def _start_lane(
    stack: AsyncExitStack, listener: socket.socket, rooms: Rooms, settings: Settings, public_url: str
) -> Listeners:
    """Listen: the last thing to start, and the first to end, with what is under way finished before."""
    if aiohttp.http_parser.HttpRequestParser is aiohttp.http_parser.HttpRequestParserPy:
        raise RuntimeError("aiohttp was installed without its C parser; install its wheel: the two differ in grammar")
    scheme, tls = "http", None
    if settings.tls is not None:
        scheme, tls = "https", await asyncio.to_thread(server_context, settings.tls.certificate, settings.tls.key)
    pages = await asyncio.to_thread(Pages, public_url, settings.clerk.sign_in_url)
    refusals = Refusals(rooms.cors, pages)
    pipeline = Pipeline(rooms)
    unusual = LaneServer(AiohttpLane(pipeline, refusals, settings.limits, scheme), settings.limits)
    fast = FastLane(pipeline, refusals, settings.limits, scheme, unusual) if settings.fast_lane else None
    loop = asyncio.get_running_loop()
    doors = Listeners(
        fast or unusual,
        ssl=tls,
        ssl_handshake_timeout=settings.limits.head_timeout if tls is not None else None,
        # For a slow client to take its last answer, and to say goodbye.
        ssl_shutdown_timeout=settings.limits.keepalive if tls is not None else None,
    )
    await doors.open(listener)

    async def drain() -> None:
        until = loop.time() + settings.drain_grace
        await doors.end(min(ON_ITS_WAY_S, settings.drain_grace))
        await asyncio.sleep(0)  # let what was accepted a moment ago begin
        unusual.pre_shutdown()
        if fast is not None:  # first, because it may still hand connections over
            await fast.drain(max(0.0, until - loop.time()))
        await unusual.shutdown(max(0.0, until - loop.time()))
        await rooms.tunnels.drain(until)  # last, because the lanes can still make tunnels

    stack.push_async_callback(drain)
    return doors
