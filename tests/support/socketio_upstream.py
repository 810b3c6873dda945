"""A real Socket.IO server behind the gateway: it reads the assertion as docs/socketio.md says, and remembers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jwt
import socketio
from aiohttp import web

from tests.support.gateway import GatewayUnderTest, gateway_under_test
from tests.support.upstream import until

NAMESPACES = ("/", "/chat", "/admin")
ROUTE: dict[str, Any] = {
    "path": "/socket.io/**",
    "auth": "required",
    "accept": ["websocket_token"],
    "protocol": "socketio",
    "upstream": "app",
}


@dataclass
class SocketIoUpstream:
    """What reached it.

    Attributes:
        auths: Of each CONNECT: its namespace and auth payload.
        events: Of each event: its namespace and arguments.
        heads: Of each HTTP request: method, target and fields.
        left: Namespaces that were left, with the reason.
    """

    server: socketio.AsyncServer
    url: str = ""
    auths: list[tuple[str, Any]] = field(default_factory=list)
    events: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    heads: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)

    def written(self) -> str:
        """Everything that reached it, as text to search for secrets."""
        return repr((self.auths, self.events, self.heads))


@asynccontextmanager
async def socketio_upstream(**options: Any) -> AsyncIterator[SocketIoUpstream]:
    """Run one; `whoami` answers what the assertion says, `echo` what it is given."""
    server = socketio.AsyncServer(async_mode="aiohttp", cors_allowed_origins="*", **options)
    upstream = SocketIoUpstream(server)
    for namespace in NAMESPACES:
        _serve(upstream, namespace)

    @web.middleware
    async def note(request: web.Request, handler: Any) -> web.StreamResponse:
        upstream.heads.append((request.method, request.raw_path, dict(request.headers)))
        response: web.StreamResponse = await handler(request)
        return response

    app = web.Application(middlewares=[note])
    server.attach(app)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield upstream
    finally:
        await server.shutdown()
        await runner.cleanup()


def _serve(upstream: SocketIoUpstream, namespace: str) -> None:
    server = upstream.server

    async def connect(sid: str, environ: Any, auth: Any = None) -> None:
        upstream.auths.append((namespace, auth))
        await server.save_session(sid, {"assertion": (auth or {}).get("token")}, namespace=namespace)

    async def whoami(sid: str) -> Any:
        upstream.events.append((namespace, ("whoami",)))
        session = await server.get_session(sid, namespace=namespace)
        if session["assertion"] is None:
            return None
        return jwt.decode(session["assertion"], options={"verify_signature": False})

    async def echo(sid: str, *given: Any) -> Any:
        upstream.events.append((namespace, ("echo", *given)))
        return given[0]

    async def call_back(sid: str, given: Any) -> None:
        upstream.events.append((namespace, ("call_back", given)))
        await server.emit("called", given, to=sid, namespace=namespace)

    async def disconnect(sid: str, reason: str) -> None:
        upstream.left.append((namespace, reason))

    for name, handler in (
        ("connect", connect),
        ("whoami", whoami),
        ("echo", echo),
        ("call_back", call_back),
        ("disconnect", disconnect),
    ):
        server.on(name, handler, namespace=namespace)


@dataclass
class SocketIoGateway:
    """A gateway before such a server."""

    gateway: GatewayUnderTest
    upstream: SocketIoUpstream

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.gateway.port}"


@asynccontextmanager
async def socketio_gateway(
    database_url: str, *, route: dict[str, Any] | None = None, options: dict[str, Any] | None = None, **changes: Any
) -> AsyncIterator[SocketIoGateway]:
    """Run both.

    Args:
        database_url: Of the gateway.
        route: Laid over `ROUTE`.
        options: Of the server.
        changes: Laid over the gateway's settings.
    """
    async with socketio_upstream(**(options or {})) as upstream:
        routes = [ROUTE | (route or {}), {"path": "/**", "auth": "required", "upstream": "app"}]
        settings: dict[str, Any] = {"routes": routes, "upstreams": {"app": {"url": upstream.url}}} | changes
        async with gateway_under_test(database_url, **settings) as gateway:
            yield SocketIoGateway(gateway, upstream)


@asynccontextmanager
async def connected_client(
    url: str,
    token: str | None,
    namespaces: list[str] | None = None,
    transports: list[str] | None = None,
    headers: dict[str, str] | None = None,
) -> AsyncIterator[socketio.AsyncClient]:
    """Socket.IO's own client for Python, connected."""
    async with aiohttp.ClientSession(headers=headers) as session:
        client = socketio.AsyncClient(reconnection=False, http_session=session)
        auth = {"token": token} if token is not None else None
        try:
            await client.connect(url, auth=auth, namespaces=namespaces or ["/"], transports=transports, wait_timeout=5)
            yield client
        finally:
            if client.eio.current_transport == "polling":  # else it waits for the answer to its last GET
                await client.eio.disconnect(abort=True)
            await client.disconnect()
            await until(lambda: client.eio.state == "disconnected")


async def refusal_of(url: str, token: str | None, transports: list[str] | None = None) -> dict[str, Any]:
    """What a client is told that cannot connect."""
    told: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    async with aiohttp.ClientSession() as session:
        client = socketio.AsyncClient(reconnection=False, http_session=session)
        client.on("connect_error", told.set_result)
        auth = {"token": token} if token is not None else None
        await client.connect(url, auth=auth, transports=transports, wait=False)
        try:
            return await asyncio.wait_for(told, 10)
        finally:
            await client.eio.disconnect(abort=True)
