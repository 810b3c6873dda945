"""The admin port: metrics, liveness, readiness. Never public; its own listener, on loopback by default."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

Check = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Watched:
    """What operators ask of a process.

    Attributes:
        registry: What /metrics renders.
        checks: What must hold for the process to take requests, by the name shown; liveness asks none of them.
    """

    registry: CollectorRegistry
    checks: Mapping[str, Check]

    async def checked(self) -> dict[str, bool]:
        """Ask every check."""
        return {name: await check() for name, check in self.checks.items()}


def admin_application(watched: Watched) -> web.Application:
    """Build the admin application of a gateway that is one process."""

    async def registry() -> CollectorRegistry:
        return watched.registry

    async def ready() -> tuple[bool, dict[str, Any]]:
        results = await watched.checked()
        return all(results.values()), {"checks": shown(results)}

    return admin_routes(registry, ready)


def shown(checks: Mapping[str, bool]) -> dict[str, str]:
    """Write the results of checks for /readyz."""
    return {name: "ok" if good else "unavailable" for name, good in checks.items()}


def admin_routes(
    registry: Callable[[], Awaitable[CollectorRegistry]],
    readiness: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]],
) -> web.Application:
    """Build an admin application.

    Args:
        registry: Gives what /metrics renders.
        readiness: Tells whether requests can be taken, and what else /readyz says.
    """

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(await registry()), headers={"Content-Type": content_type})

    async def alive(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(request: web.Request) -> web.Response:
        good, details = await readiness()
        body = {"status": "ok" if good else "unavailable", **details}
        return web.json_response(body, status=200 if good else 503)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    return app
