"""A real server of key sets on 127.0.0.1 that counts fetches and can fail in every way we know."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from tests.support.clerk_keys import jwks

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class JwksServer:
    """Answers `url` with `body`, or as `answer` says.

    Attributes:
        url: Of the key set.
        body: The key set document.
        answer: Set to misbehave; None answers `body`.
        fetches: Requests seen.
        headers: Of each request.
        gate: While cleared, answers wait.
        elsewhere: Requests that reached another path than the key set's.
    """

    def __init__(self) -> None:
        self.url = ""
        self.body = jwks()
        self.answer: Answer | None = None
        self.fetches = 0
        self.headers: list[Mapping[str, str]] = []
        self.elsewhere = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/.well-known/jwks.json":
            self.elsewhere += 1
            return web.Response(body=self.body, content_type="application/json")
        self.fetches += 1
        self.headers.append(request.headers)
        await self.gate.wait()
        if self.answer is not None:
            return await self.answer(request)
        return web.Response(body=self.body, content_type="application/json")


@asynccontextmanager
async def serve_jwks() -> AsyncIterator[JwksServer]:
    """Run a server until the block ends."""
    server = JwksServer()
    app = web.Application()
    app.router.add_get("/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}/.well-known/jwks.json"
    try:
        yield server
    finally:
        server.gate.set()
        await runner.cleanup()


async def status_500(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text="no")


async def html(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>maintenance</html>", content_type="text/html")


async def empty_keys(_: web.Request) -> web.StreamResponse:
    return web.json_response({"keys": []})


async def too_large(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b'{"keys": [' + b" " * 10_000_000 + b"]}", content_type="application/json")


async def dropped(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def redirect(_: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "/elsewhere.json"})


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def slow_body(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(300):
        await response.write(b" ")
        await asyncio.sleep(0.1)
    return response
