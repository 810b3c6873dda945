"""The admin port: metrics, liveness, readiness. Never public; its own listener, on loopback by default."""

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

Check = Callable[[], Awaitable[bool]]


def admin_application(registry: CollectorRegistry, checks: Mapping[str, Check]) -> web.Application:
    """Build the admin application.

    Args:
        registry: What /metrics renders.
        checks: What must hold for the process to take requests, by the name shown; liveness asks none of them.
    """

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def alive(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(request: web.Request) -> web.Response:
        results = {name: "ok" if await check() else "unavailable" for name, check in checks.items()}
        good = all(result == "ok" for result in results.values())
        body = {"status": "ok" if good else "unavailable", "checks": results}
        return web.json_response(body, status=200 if good else 503)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    return app
