"""The proxy most Python teams write: aiohttp in front, `aiohttp.ClientSession` behind, verified tokens cached.

It does what the gateway does for the measured request: verify once per token, strip and set identity headers, stream
the answer. It leaves out most of what the gateway refuses. With `settled` it also has the gateway's garbage settings.

    python -m benchmarks.client_session_proxy PORT UPSTREAM_URL JWKS_URL [settled]
"""

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import jwt
import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

IDENTITY = ("x-actor-id", "x-actor-role", "x-actor-auth", "x-organization-id", "x-organization-role", "x-request-id")
PER_HOP = ("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "authorization")
SESSION = web.AppKey("session", ClientSession)
KEY = web.AppKey("key", Any)


def verified(token: str, key: Any, cache: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Verify a token, or find it verified."""
    claims = cache.get(token)
    if claims is None or claims["exp"] < time.time():
        claims = cache[token] = jwt.decode(token, key, algorithms=["RS256"], options={"verify_aud": False})
    return claims


async def clients(jwks_url: str, app: web.Application) -> AsyncIterator[None]:
    """Hold the upstream's client for the application's life, and fetch the signing key once."""
    connector = TCPConnector(limit=0)
    async with ClientSession(connector=connector, cookie_jar=DummyCookieJar(), auto_decompress=False) as session:
        async with session.get(jwks_url) as answer:
            app[KEY] = jwt.PyJWK((await answer.json())["keys"][0]).key
        app[SESSION] = session
        yield


def application(upstream: str, jwks_url: str) -> web.Application:
    """Build the proxy."""
    cache: dict[str, dict[str, Any]] = {}

    async def forward(request: web.Request) -> web.StreamResponse:
        _, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            claims = verified(token, request.app[KEY], cache)
        except jwt.PyJWTError:
            raise web.HTTPUnauthorized from None
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in IDENTITY and name.lower() not in PER_HOP
        }
        headers |= {"X-Actor-Id": claims["sub"], "X-Actor-Role": "USER", "X-Actor-Auth": "session"}
        headers |= {"X-Organization-Id": "org", "X-Organization-Role": "admin", "X-Request-Id": "0" * 32}
        async with request.app[SESSION].request(
            request.method,
            upstream + request.raw_path,
            headers=headers,
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in PER_HOP:
                    response.headers.add(name, value)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    app = web.Application()
    app.cleanup_ctx.append(partial(clients, jwks_url))
    app.router.add_route("*", "/{path:.*}", forward)
    return app


async def main(port: int, upstream: str, jwks_url: str, *, settled: bool) -> None:
    """Serve until killed."""
    runner = web.AppRunner(application(upstream, jwks_url), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    if settled:
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], settled="settled" in sys.argv[4:]))
