"""PostHog as far as flags need it: definitions behind a key, with ETags, quotas and failures."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler

PROJECT_KEY, SECRET_KEY = "phc_project", "phx_secret"


class FakePosthog:
    """Serves definitions.

    Attributes:
        flags: What it serves.
        status: How it answers; 0: it hangs.
        requests: How often it was asked anything, whatever the path.
        queries: What was asked for.
        cut: After how many bytes of the body it closes the connection; None: it does not.
        not_modified: How often the asker had the same already.
    """

    def __init__(self) -> None:
        self.flags: list[dict[str, Any]] = []
        self.status = 200
        self.body: bytes | None = None
        self.cut: int | None = None
        self.requests = 0
        self.queries: list[str] = []
        self.not_modified = 0
        self.url = ""
        self.closing = asyncio.Event()

    async def definitions(self, request: web.Request) -> web.StreamResponse:
        """`GET /flags/definitions`."""
        if self.status == 0:
            await self.closing.wait()
        if request.headers.get("Authorization") != f"Bearer {SECRET_KEY}":
            return web.json_response({"type": "authentication_error"}, status=401)
        if self.status != 200:
            return web.json_response({"type": "quota_limited" if self.status == 402 else "error"}, status=self.status)
        assert request.query["token"] == PROJECT_KEY
        body = self.body
        if body is None:
            body = json.dumps(
                {"flags": self.flags, "group_type_mapping": {"0": "organization"}, "cohorts": {}}
            ).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        if request.headers.get("If-None-Match") == etag:
            self.not_modified += 1
            return web.Response(status=304, headers={"ETag": etag})
        if self.cut is not None:
            answer = web.StreamResponse(headers={"Content-Length": str(len(body))})
            await answer.prepare(request)
            await answer.write(body[: self.cut])
            assert request.transport is not None
            request.transport.close()
            return answer
        return web.Response(body=body, content_type="application/json", headers={"ETag": etag})


@asynccontextmanager
async def fake_posthog() -> AsyncIterator[FakePosthog]:
    """Serve on loopback inside the context."""
    fake = FakePosthog()

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        fake.requests += 1
        fake.queries.append(request.path_qs)
        return await handler(request)

    app = web.Application(middlewares=[count])
    app.router.add_get("/flags/definitions", fake.definitions)
    server = TestServer(app)
    await server.start_server()
    fake.url = str(server.make_url(""))
    try:
        yield fake
    finally:
        fake.closing.set()
        await server.close()
