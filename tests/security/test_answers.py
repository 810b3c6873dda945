"""What the gateway's own answers and log lines say, and what they never do."""

import re

import pytest
import structlog
from structlog.testing import capture_logs

from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.upstream import answering_and_closing
from tests.support.wire import Reply, bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS = {
    "routes": [
        {"path": "/public/**", "auth": "none", "upstream": "app"},
        {"path": "/admins/**", "auth": "required", "roles": ["ADMIN"], "upstream": "app"},
        {"path": "/x/**", "auth": "required", "upstream": "app"},
    ]
}
MEMBERS = {"type", "title", "status", "detail", "code", "requestId"}


async def refusals(gateway: GatewayUnderTest) -> list[Reply]:
    """One answer of each usual kind of refusal."""
    gateway.upstream.respond = answering_and_closing(b"HTTP/1.1 200 OK\r\nX-A\x00: secret-host\r\n\r\n")
    return [
        await gateway.get("/x"),
        await gateway.get("/x", bearer("garbage-token")),
        await gateway.get("/admins/x", bearer(mint_token())),
        await gateway.get("/nowhere"),
        await gateway.get("/public/../x"),
        await gateway.get("/x", bearer(mint_token()), bearer(mint_token())),
        await gateway.ask(request("/public/x", method="TRACE")),
        await gateway.ask(b"GET /public/x HTTP/1.1\r\nHost: a\r\nX-A\x00: ${jndi:ldap://x}\r\n\r\n"),
        await gateway.get("/public/x"),
    ]


async def test_l05_refusals_have_fixed_bodies_and_name_nobody(gateway: GatewayUnderTest) -> None:
    replies = await refusals(gateway)

    assert [reply.status for reply in replies] == [401, 401, 403, 404, 400, 400, 405, 400, 502]
    for reply in replies:
        assert reply.code
        assert set(reply.json()) == MEMBERS
        assert reply.json()["type"] == "about:blank"
        assert reply.get("cache-control") == "no-store"
        assert reply.get("x-content-type-options") == "nosniff"
        assert reply.all("server") == []
        assert not re.search(rb"garbage|secret-host|jndi|aiohttp|[Pp]ython|Traceback|127\.0\.0\.1", reply.body)


async def test_l05_upstream_that_is_away_is_named_to_nobody(database_url: str) -> None:
    away = {"app": {"url": "http://127.0.0.1:1"}}
    async with gateway_under_test(database_url, upstreams=away) as gateway:
        reply = await gateway.get("/public/x")

    assert reply.status == 502
    assert reply.code == "upstream_unreachable"
    assert b"127.0.0.1" not in reply.body


async def test_l03_current_user_is_never_stored_and_varies_with_the_credential(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/users/current", bearer(mint_token()))

    vary = {name.strip().lower() for value in reply.all("vary") for name in value.split(",")}
    assert reply.status == 200
    assert reply.get("cache-control") == "no-store"
    assert {"authorization", "cookie"} <= vary
    assert b"secret" not in reply.body.lower()


async def test_l02_tokens_and_cookies_are_in_no_log_line_and_no_metric(gateway: GatewayUnderTest) -> None:
    token, expired = mint_token(jti="logged"), mint_token(now=0)
    structlog.reset_defaults()
    with capture_logs() as lines:
        await gateway.get("/x", bearer(token), "Cookie: theme=private-cookie")
        await gateway.get("/x?token=in-the-query", bearer(expired))
        await gateway.get("/x", f"Cookie: __session={expired}; __client_uat=1; theme=private-cookie")
        await gateway.get("/x", bearer(token), bearer(expired))
    metrics = await gateway.metrics()

    told = repr(lines) + metrics
    assert lines
    for secret in (token, expired, expired.split(".")[2], "private-cookie", "in-the-query"):
        assert secret not in told


async def test_l01_refused_bytes_are_in_no_log_line_and_leave_no_traceback(gateway: GatewayUnderTest) -> None:
    structlog.reset_defaults()
    with capture_logs() as lines:
        for _ in range(40):
            await gateway.ask(b"GET /\x1b[31m${jndi:ldap://x} HTTP/1.1\r\nHost: a\r\n\r\n")

    assert 0 < len(lines) <= 30
    assert "jndi" not in repr(lines)
    assert all("exc_info" not in line and "exception" not in line for line in lines)


async def test_l04_metrics_do_not_grow_with_what_clients_choose(gateway: GatewayUnderTest) -> None:
    async def ask_around(start: int) -> None:
        for number in range(start, start + 40):
            await gateway.get(f"/nowhere/{number}")
            await gateway.get(f"/x/{number}", bearer(mint_token(kid=f"ins_{number}")))
            await gateway.ask(request(f"/public/{number}", method=f"M{number}"))

    await ask_around(0)
    before = len((await gateway.metrics()).splitlines())
    await ask_around(100)

    assert len((await gateway.metrics()).splitlines()) == before
