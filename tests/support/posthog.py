"""A fake of PostHog's capture endpoint at its wire, with the ways it can fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

Failure = Literal["rate_limited", "failed", "hang", "refused", "too_large", "lost_answer", "reset", "redirect"]
PROJECT_KEY = "phc_of_these_tests"
EVENTS_OF_A_LARGE_BATCH = 3


@dataclass
class Posthog:
    """Keeps what was sent.

    Attributes:
        host: To name in the settings, once running.
        batches: Bodies of all requests to `/batch/`, in order, whatever was answered.
        taken: Events by uuid, of answers that were good, or were lost after the event was kept.
        failure: How to answer badly; None answers well.
        retry_after: What a 429 says.
        asked: Set whenever a request came.
    """

    host: str = ""
    batches: list[dict[str, Any]] = field(default_factory=list)
    taken: dict[str, dict[str, Any]] = field(default_factory=dict)
    failure: Failure | None = None
    retry_after: str | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def next_request(self) -> None:
        """Wait for another request."""
        self.asked.clear()
        async with asyncio.timeout(10):
            await self.asked.wait()

    async def until_taken(self, count: int) -> None:
        """Wait until this many events were taken."""
        async with asyncio.timeout(10):
            while len(self.taken) < count:
                await self.next_request()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Posthog"]:
        """Serve on 127.0.0.1."""
        app = web.Application(client_max_size=2**25)
        app.add_routes([web.post("/batch/", self._answer)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert request.content_type == "application/json"
        document = await request.json()
        self.batches.append(document)
        try:
            return await self._judge(request, document)
        finally:
            self.asked.set()

    async def _judge(self, request: web.Request, document: dict[str, Any]) -> web.StreamResponse:
        match self.failure:
            case "rate_limited":
                headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
                return web.json_response({"type": "rate_limited"}, status=429, headers=headers)
            case "failed":
                return web.Response(status=503, text="unavailable")
            case "hang":
                self.asked.set()
                await asyncio.sleep(3600)
            case "refused":
                return web.json_response({"type": "validation_error"}, status=400)
            case "redirect":
                return web.Response(status=302, headers={"Location": f"{self.host}/elsewhere"})
            case "too_large" if len(document["batch"]) >= EVENTS_OF_A_LARGE_BATCH:
                return web.Response(status=413)
            case "reset" | "lost_answer":
                if self.failure == "lost_answer":
                    self._keep(document)
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case _:
                pass
        if document["api_key"] != PROJECT_KEY:
            return web.json_response({"type": "authentication_error"}, status=401)
        self._keep(document)
        return web.json_response({"status": "Ok"})

    def _keep(self, document: dict[str, Any]) -> None:
        for event in document["batch"]:
            self.taken[event["uuid"]] = event


__all__ = ["PROJECT_KEY", "Posthog"]
