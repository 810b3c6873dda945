"""A demo upstream that shows exactly what reached it: JSON for programs, a page for browsers. Loopback only.

Any path answers. The last segments choose a few special ones: `events` (server-sent events), `size` (how much came,
no echo) and `bytes/N` (N bytes back).
"""

import asyncio
import hashlib
from dataclasses import asdict, dataclass

import aiohttp_jinja2
import orjson
from aiohttp import web

from gateway.dev.assets import Assets, add_templates

SHOWN_BYTES = 64 * 1024
"""How much of a body is shown; more is counted and hashed, never kept."""

_CHUNK = bytes(64 * 1024)
_MAX_BYTES = 10 * 2**30
_MAX_EVENTS = 3600
_IDENTITY = ("x-actor-", "x-organization-", "x-subscription-", "x-feature-flags", "x-request-id")
_ISSUER_URL = web.AppKey("issuer_url", str)


@dataclass(frozen=True, slots=True)
class Body:
    """A body, counted to its end.

    Attributes:
        size: Bytes.
        sha256: Hex digest of all of it.
        text: Its beginning, at most `SHOWN_BYTES`, as UTF-8 with replacements.
        shown_whole: Whether `text` is all of it.
    """

    size: int
    sha256: str
    text: str
    shown_whole: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived.

    Attributes:
        method: As sent.
        target: Request target, byte for byte (Latin-1).
        version: `1.1` or `1.0`.
        headers: Field lines, names spelled as sent, in order, duplicates kept.
    """

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: Body


def demo_application(issuer_url: str, assets: Assets) -> web.Application:
    """Build the demo upstream; its pages borrow the style sheet of the issuer."""
    app = web.Application()
    app[_ISSUER_URL] = issuer_url
    add_templates(app, assets)
    app.router.add_route("*", "/{path:.*}", _answer)
    return app


async def _answer(request: web.Request) -> web.StreamResponse:
    """Answer, or give up in silence when the client has gone: not an error that a developer should read about."""
    try:
        return await _respond(request)
    except (ConnectionError, web.RequestPayloadError):
        return web.Response(status=400)


async def _respond(request: web.Request) -> web.StreamResponse:
    segments = request.raw_path.partition("?")[0].strip("/").split("/")
    if segments[-1] == "events":
        return await _events(request)
    if segments[-1] == "size":
        return _json({"size": (await _read(request)).size})
    if len(segments) > 1 and segments[-2] == "bytes" and segments[-1].isascii() and segments[-1].isdigit():
        return await _bytes(request, min(int(segments[-1][:12]), _MAX_BYTES))
    seen = await see(request)
    if request.method in {"GET", "POST"} and "text/html" in request.headers.get("Accept", ""):
        return _page(request, seen)
    return _json(asdict(seen))


async def see(request: web.Request) -> Seen:
    """Note down one request, its body read to the end."""
    return Seen(
        method=request.method,
        target=request.raw_path,
        version=f"{request.version.major}.{request.version.minor}",
        headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers),
        body=await _read(request),
    )


async def _read(request: web.Request) -> Body:
    digest, size, beginning = hashlib.sha256(), 0, bytearray()
    async for chunk in request.content.iter_any():
        digest.update(chunk)
        size += len(chunk)
        beginning += chunk[: SHOWN_BYTES - len(beginning)]
    return Body(size, digest.hexdigest(), beginning.decode(errors="replace"), size == len(beginning))


def _json(value: object) -> web.Response:
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})


def _page(request: web.Request, seen: Seen) -> web.Response:
    issuer_url = request.app[_ISSUER_URL]
    identity = tuple((name, value) for name, value in seen.headers if name.lower().startswith(_IDENTITY))
    context = {"seen": seen, "identity": identity, "issuer_url": issuer_url}
    response = aiohttp_jinja2.render_template("upstream.html", request, context)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Content-Security-Policy"] = f"default-src 'none'; style-src {issuer_url}; base-uri 'none'"
    return response


async def _events(request: web.Request) -> web.StreamResponse:
    """Send `?count=` events (10 unless said), one a second."""
    asked = request.query.get("count", "10")
    count = min(int(asked), _MAX_EVENTS) if asked.isascii() and asked.isdigit() and len(asked) < 9 else 10
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    for number in range(count):
        if number:
            await asyncio.sleep(1)
        await response.write(f"id: {number}\ndata: event {number} of {count}\n\n".encode())
    await response.write_eof()
    return response


async def _bytes(request: web.Request, size: int) -> web.StreamResponse:
    """Send that many zero bytes, never more of them in memory than a chunk."""
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", "Cache-Control": "no-store"})
    response.content_length = size
    await response.prepare(request)
    left = size if request.method != "HEAD" else 0
    while left:
        chunk = _CHUNK[:left]
        await response.write(chunk)
        left -= len(chunk)
    await response.write_eof()
    return response
