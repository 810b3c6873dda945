"""A local issuer that looks like a Clerk development instance: keys, Backend API, sign-in page. Loopback only."""

from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import ClientSession, web

from gateway.dev.assets import Assets, add_static, add_templates
from gateway.dev.backend_api import BackendApi
from gateway.dev.pages import CLIENT, Pages
from gateway.dev.place import Place
from gateway.dev.returns import is_loopback_host
from gateway.dev.tokens import Mint

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def issuer_application(place: Place, mint: Mint, secret_key: str, assets: Assets) -> web.Application:
    """Build the issuer.

    Args:
        place: Where everything is.
        mint: Holds the signing key; its issuer is this application's URL.
        secret_key: `sk_test_…`, what callers of the Backend API must show.
        assets: Of the pages.
    """
    app = web.Application(middlewares=[_refuse_foreign_hosts])
    add_templates(app, assets)
    add_static(app, assets)

    async def jwks(_: web.Request) -> web.Response:
        return web.json_response(mint.key.jwks())

    app.add_routes([web.get("/.well-known/jwks.json", jwks)])
    app.add_routes(BackendApi(secret_key, mint.key).routes())
    app.add_routes(Pages(place, mint).routes())
    app.cleanup_ctx.append(_with_client)
    app.on_response_prepare.append(_harden(place))
    return app


async def _with_client(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession() as session:
        app[CLIENT] = session
        yield


@web.middleware
async def _refuse_foreign_hosts(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer only to names of this machine, or a page elsewhere could read tokens by DNS rebinding."""
    if not is_loopback_host(request.host):
        raise web.HTTPMisdirectedRequest(text="this issuer answers to 127.0.0.1 and localhost only\n")
    return await handler(request)


def _harden(place: Place) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Build the hook that sets the fields every answer carries."""
    # Browsers hold form-action against the redirect after a form too, and sign-in leads to the gateway.
    forms = " ".join(("'self'", *place.ports.gateway_origins))
    policy = (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        f"form-action {forms}; base-uri 'none'; frame-ancestors 'none'"
    )

    async def harden(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        # With "no-referrer" browsers would send `Origin: null` with our own forms.
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers["Cache-Control"] = "no-store"

    return harden
