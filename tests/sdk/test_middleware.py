"""Applications behind the real gateway, with the package in front of them; and what `docs/upstreams.md` shows."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from aiohttp import web
from django.conf import settings as django_settings
from django.http import HttpRequest, JsonResponse

from actorgate_upstream import ActorMiddleware, Verifier
from actorgate_upstream.aiohttp import ACTOR, actor_middleware
from tests.support.gateway import ORIGIN, GatewayUnderTest, gateway_under_test, mint_token
from tests.support.ports import free_port
from tests.support.wire import Reply, bearer, connected, request

UPSTREAMS = (Path(__file__).parent.parent.parent / "docs/upstreams.md").read_text(encoding="utf-8")
READER: dict[str, Any] = {
    "o": {"id": "org_2acme", "slg": "acme", "rol": "admin", "per": "read", "fpm": "1"},
    "fea": "o:reports",
}


def snippet(name: str, gateway: GatewayUnderTest) -> dict[str, Any]:
    """Run what the document shows, with the gateway's own address for that of the example."""
    code = UPSTREAMS.partition(f"<!-- {name}:")[2].partition("```python\n")[2].partition("```")[0]
    jwks = f"http://127.0.0.1:{gateway.port}/.well-known/jwks.json"
    code = code.replace('f"{ISSUER}/.well-known/jwks.json"', repr(jwks)).replace("https://app.example.com", ORIGIN)
    code = code.replace(', audience="app")', f', audience="app", jwks_url={jwks!r})')
    names: dict[str, Any] = {"__name__": name}
    exec(compile(code, f"docs/upstreams.md {name}", "exec"), names)
    return names


class QuietServer(uvicorn.Server):
    """Leaves signals to the tests."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: Any, port: int) -> AsyncIterator[None]:
    """Serve an ASGI application."""
    server = QuietServer(uvicorn.Config(app, port=port, log_level="error", lifespan="off", ws="none"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def past_the_gateway(port: int, *lines: str) -> Reply:
    async with connected(port) as wire:
        return await wire.ask(request("/reports", *lines, "Connection: close"))


async def test_fastapi_behind_the_gateway_knows_who_calls(database_url: str) -> None:
    port = free_port()
    async with gateway_under_test(database_url, upstreams={"app": {"url": f"http://127.0.0.1:{port}"}}) as gateway:
        app = snippet("fastapi", gateway)["app"]
        async with serving(app, port):
            reader = await gateway.get("/reports", bearer(mint_token(**READER)))
            other = await gateway.get("/reports", bearer(mint_token()))
            forged = await gateway.get("/public/reports", "X-Actor-Assertion: mine")
            user = (await gateway.get("/users/current", bearer(mint_token(**READER)))).json()
            missing = await past_the_gateway(port, "X-Actor-Id: usr_admin", "X-Actor-Role: ADMIN")
            junk = await past_the_gateway(port, "X-Actor-Assertion: a.b.c")

    assert (reader.status, reader.json()) == (200, {"organization": user["organization"]["id"], "reader": user["id"]})
    assert other.status == 403
    assert (forged.status, forged.json()["code"]) == (401, "assertion_missing")
    assert (missing.status, missing.json()["code"]) == (401, "assertion_missing")
    assert (junk.status, junk.json()["code"]) == (401, "assertion_invalid")
    assert junk.get("www-authenticate") == "ActorAssertion"


async def test_an_application_that_cannot_fetch_keys_says_503(database_url: str) -> None:
    port, nobody = free_port(), free_port()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nothing may pass")

    verified = ActorMiddleware(app, issuer=ORIGIN, audience="app", jwks_url=f"http://127.0.0.1:{nobody}/jwks.json")
    async with (
        gateway_under_test(database_url, upstreams={"app": {"url": f"http://127.0.0.1:{port}"}}) as gateway,
        serving(verified, port),
    ):
        reply = await gateway.get("/reports", bearer(mint_token()))

    assert (reply.status, reply.json()["code"]) == (503, "keys_unavailable")
    assert reply.get("retry-after") == "1"


async def test_an_assertion_for_another_upstream_is_refused(database_url: str) -> None:
    port = free_port()
    async with gateway_under_test(database_url, upstreams={"app": {"url": f"http://127.0.0.1:{port}"}}) as gateway:
        verifier = Verifier(
            issuer=ORIGIN, audience="other", jwks_url=f"http://127.0.0.1:{gateway.port}/.well-known/jwks.json"
        )
        async with serving(ActorMiddleware(nothing, verifier=verifier), port):
            reply = await gateway.get("/reports", bearer(mint_token()))

    assert (reply.status, reply.json()["code"]) == (401, "assertion_invalid")


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing may pass")


async def test_aiohttp_behind_the_gateway_knows_who_calls(database_url: str) -> None:
    async def show(asked: web.Request) -> web.Response:
        actor = asked[ACTOR]
        return web.json_response({"id": None if actor is None else actor.id})

    port = free_port()
    async with gateway_under_test(database_url, upstreams={"app": {"url": f"http://127.0.0.1:{port}"}}) as gateway:
        verifier = Verifier(
            issuer=ORIGIN, audience="app", jwks_url=f"http://127.0.0.1:{gateway.port}/.well-known/jwks.json"
        )
        optional = actor_middleware(verifier, optional=lambda path: path.startswith("/public/"))
        app = web.Application(middlewares=[optional])
        app.router.add_get("/{path:.*}", show)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        known = await gateway.get("/x", bearer(mint_token()))
        anonymous = await gateway.get("/public/x")
        missing = await past_the_gateway(port)
        bad = await past_the_gateway(port, "X-Actor-Assertion: a.b.c")
        await runner.cleanup()

    assert known.json()["id"].startswith("usr_")
    assert anonymous.json() == {"id": None}
    assert (missing.status, bad.status) == (401, 401)


@pytest.mark.parametrize("extensions, sent", [({}, "websocket.close"), ({"websocket.http.response": {}}, 401)])
async def test_a_websocket_without_an_assertion_is_never_accepted(extensions: Any, sent: object) -> None:
    messages: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {"type": "websocket", "path": "/ws", "headers": [], "extensions": extensions}
    await ActorMiddleware(nothing, issuer=ORIGIN, audience="app")(scope, receive, send)

    assert messages[0].get("status", messages[0]["type"]) == sent


async def test_what_is_no_request_passes() -> None:
    passed = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    await ActorMiddleware(app, issuer=ORIGIN, audience="app")({"type": "lifespan"}, None, None)  # type: ignore[arg-type]

    assert passed == ["lifespan"]


async def test_django_knows_who_calls(database_url: str) -> None:
    if not django_settings.configured:
        django_settings.configure(ALLOWED_HOSTS=["*"], DEFAULT_CHARSET="utf-8")
    async with gateway_under_test(database_url) as gateway:
        await gateway.get("/x", bearer(mint_token()))
        received = gateway.upstream.received[-1]
        names = snippet("django", gateway)
        middleware = names["ActorMiddleware"](lambda asked: JsonResponse({"id": asked.actor["sub"]}))

        async def ask(assertion: str) -> Any:
            asked = HttpRequest()
            asked.META["HTTP_X_ACTOR_ASSERTION"] = assertion
            return await asyncio.to_thread(middleware, asked)

        good, bad, missing = [await ask(text) for text in (received.one("X-Actor-Assertion"), "a.b.c", "")]
        assertion = received.one("X-Actor-Assertion")
        names["AUDIENCE"] = "other"
        foreign = await ask(assertion)

    assert (good.status_code, bad.status_code, missing.status_code) == (200, 401, 401)
    assert received.one("X-Actor-Id").encode() in good.content
    assert foreign.status_code == 401
