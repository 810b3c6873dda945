"""What browsers may do with a person's cookies, what pages of other origins may read, and what people see."""

import pytest

from gateway.edge.fields import IDENTITY_NAMES
from tests.support.clerk_keys import ABSENT
from tests.support.gateway import ORIGIN, GatewayUnderTest, mint_token
from tests.support.jwks_server import status_500
from tests.support.upstream import answering
from tests.support.wire import Reply, bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
OTHER_ORIGIN = "https://evil.example"
SETTINGS = {
    "clerk": {"sign_in_url": "https://accounts.example.test/sign-in"},
    "routes": [
        {"path": "/public/**", "auth": "none", "upstream": "app"},
        {"path": "/optional/**", "auth": "optional", "upstream": "app"},
        {"path": "/own-cors/**", "auth": "required", "cors": "upstream", "upstream": "app"},
        {"path": "/open/**", "auth": "required", "cross_site": "allow", "upstream": "app"},
        {"path": "/admins/**", "auth": "required", "roles": ["ADMIN"], "upstream": "app"},
        {"path": "/reads/**", "auth": "required", "methods": ["GET"], "upstream": "app"},
        {"path": "/x", "auth": "required", "upstream": "app"},
    ],
}
SETTINGS_PATH = "/users/current/settings"


def cookie() -> str:
    return f"Cookie: __session={mint_token(azp=ABSENT)}; __client_uat=1"


def is_readable(reply: Reply, origin: str = ORIGIN) -> bool:
    """Whether a page of this origin may read the answer, with credentials."""
    allowed = reply.get("access-control-allow-origin")
    assert allowed != "*"
    return allowed == origin and reply.get("access-control-allow-credentials") == "true"


def varies_on(reply: Reply) -> set[str]:
    return {name.strip().lower() for value in reply.all("vary") for name in value.split(",")}


FOREIGN = [
    (f"Origin: {OTHER_ORIGIN}",),
    ("Origin: null",),
    (f"Origin: {ORIGIN}.evil.example",),
    (f"Origin: {OTHER_ORIGIN}", "Sec-Fetch-Site: same-origin"),
    ("Sec-Fetch-Site: cross-site",),
    (),
]


@pytest.mark.parametrize("lines", FOREIGN)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PURGE"])
async def test_l06_cookie_from_another_site_changes_nothing(
    gateway: GatewayUnderTest, method: str, lines: tuple[str, ...]
) -> None:
    reply = await gateway.ask(request("/x", cookie(), *lines, method=method))

    assert reply.status == 403
    assert reply.code == "cross_site"
    assert gateway.upstream.received == []


@pytest.mark.parametrize("lines", FOREIGN)
async def test_l06_cookie_from_another_site_changes_no_settings(
    gateway: GatewayUnderTest, lines: tuple[str, ...]
) -> None:
    written = request(SETTINGS_PATH, cookie(), *lines, "Content-Type: application/json", method="PATCH", body=b"{}")

    reply = await gateway.ask(written)

    assert reply.status == 403
    assert reply.code == "cross_site"


@pytest.mark.parametrize("target", ["/x", "/optional/x"])
@pytest.mark.parametrize("line", [f"Origin: {ORIGIN}", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: same-site"])
async def test_l06_cookie_from_the_own_site_may_act(gateway: GatewayUnderTest, target: str, line: str) -> None:
    reply = await gateway.ask(request(target, cookie(), line, method="POST", body=b"x"))

    assert reply.status == 200


async def test_l06_cookie_may_read_from_anywhere(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/x", cookie(), f"Origin: {OTHER_ORIGIN}")

    assert reply.status == 200
    assert reply.all("access-control-allow-origin") == []


async def test_l06_bearer_needs_no_origin(gateway: GatewayUnderTest) -> None:
    reply = await gateway.ask(request("/x", bearer(mint_token()), f"Origin: {OTHER_ORIGIN}", method="POST", body=b"x"))

    assert reply.status == 200


async def test_l06_route_may_opt_out(gateway: GatewayUnderTest) -> None:
    reply = await gateway.ask(request("/open/x", cookie(), f"Origin: {OTHER_ORIGIN}", method="POST", body=b"x"))

    assert reply.status == 200


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_l06_settings_take_json_alone(gateway: GatewayUnderTest, media_type: str) -> None:
    lines = (cookie(), f"Origin: {ORIGIN}", f"Content-Type: {media_type}")

    reply = await gateway.ask(request(SETTINGS_PATH, *lines, method="PATCH", body=b'{"a":1}'))

    assert reply.status == 415
    assert reply.code == "content_type_unsupported"


@pytest.mark.parametrize("target", ["/x", "/users/current"])
async def test_l06_refusal_can_be_read_by_an_allowed_origin(gateway: GatewayUnderTest, target: str) -> None:
    reply = await gateway.get(target, f"Origin: {ORIGIN}")

    assert reply.status == 401
    assert is_readable(reply)
    assert "origin" in varies_on(reply)
    assert "WWW-Authenticate" in (reply.get("access-control-expose-headers") or "")


async def test_l06_denial_can_be_read_by_an_allowed_origin(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/admins/x", bearer(mint_token()), f"Origin: {ORIGIN}")

    assert reply.status == 403
    assert is_readable(reply)


async def test_l06_outage_can_be_read_by_an_allowed_origin(gateway: GatewayUnderTest) -> None:
    gateway.jwks.answer = status_500
    reply = await gateway.get("/x", bearer(mint_token(kid="ins_new")), f"Origin: {ORIGIN}")

    assert reply.status == 503
    assert is_readable(reply)
    assert reply.get("retry-after")


@pytest.mark.parametrize("origin", [OTHER_ORIGIN, "null", f"{ORIGIN}.evil.example", "*"])
@pytest.mark.parametrize("target", ["/x", "/users/current", "/nowhere"])
async def test_l06_refusal_cannot_be_read_by_others(gateway: GatewayUnderTest, target: str, origin: str) -> None:
    reply = await gateway.get(target, f"Origin: {origin}")

    assert reply.status in (401, 404)
    assert reply.all("access-control-allow-origin") == []


@pytest.mark.parametrize("target", ["/x", "/optional/x", "/users/current", SETTINGS_PATH, "/reads/x", "/public/x"])
async def test_preflight_is_answered_here(gateway: GatewayUnderTest, target: str) -> None:
    lines = (
        f"Origin: {ORIGIN}",
        "Access-Control-Request-Method: GET",
        "Access-Control-Request-Headers: x-a, authorization",
    )

    reply = await gateway.ask(request(target, *lines, method="OPTIONS"))

    assert reply.status == 204
    assert is_readable(reply)
    assert "GET" in (reply.get("access-control-allow-methods") or "")
    assert reply.get("access-control-allow-headers") == "x-a, authorization"
    assert {"origin", "access-control-request-method"} <= varies_on(reply)
    assert gateway.upstream.received == []


@pytest.mark.parametrize("target", ["/x", "/users/current"])
async def test_preflight_of_another_origin_is_refused(gateway: GatewayUnderTest, target: str) -> None:
    lines = (f"Origin: {OTHER_ORIGIN}", "Access-Control-Request-Method: GET")

    reply = await gateway.ask(request(target, *lines, method="OPTIONS"))

    assert reply.status == 403
    assert reply.all("access-control-allow-origin") == []
    assert gateway.upstream.received == []


@pytest.mark.parametrize("target,method", [("/nowhere", "GET"), ("/reads/x", "DELETE")])
async def test_preflight_for_what_no_route_takes_is_not_found(
    gateway: GatewayUnderTest, target: str, method: str
) -> None:
    lines = (f"Origin: {ORIGIN}", f"Access-Control-Request-Method: {method}")

    reply = await gateway.ask(request(target, *lines, method="OPTIONS"))

    assert reply.status == 404


async def test_h11_preflight_for_the_upstream_passes_as_nobody(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond = answering(
        b"HTTP/1.1 204 No Content\r\nAccess-Control-Allow-Origin: https://of-the-upstream.example\r\n\r\n"
    )
    lines = (f"Origin: {OTHER_ORIGIN}", "Access-Control-Request-Method: PUT", "X-Actor-Id: spoofed", cookie())

    reply = await gateway.ask(request("/own-cors/x", *lines, bearer(mint_token()), method="OPTIONS"))

    seen = gateway.upstream.last
    assert reply.status == 204
    assert reply.get("access-control-allow-origin") == "https://of-the-upstream.example"
    assert all(seen.one(name.decode()) == "" for name in IDENTITY_NAMES)
    assert seen.one("access-control-request-method") == "PUT"
    assert seen.all("cookie") + seen.all("authorization") == []


async def test_options_that_is_no_preflight_needs_a_credential(gateway: GatewayUnderTest) -> None:
    reply = await gateway.ask(request("/own-cors/x", f"Origin: {ORIGIN}", method="OPTIONS"))

    assert reply.status == 401
    assert gateway.upstream.received == []


async def test_proxied_answer_can_be_read_by_an_allowed_origin(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/x", bearer(mint_token()), f"Origin: {ORIGIN}")

    assert reply.status == 200
    assert is_readable(reply)


async def test_upstream_with_cors_of_its_own_has_the_last_word(gateway: GatewayUnderTest) -> None:
    own = b"Access-Control-Allow-Origin: https://of-the-upstream.example\r\n"
    gateway.upstream.respond = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + own + b"\r\n")

    reply = await gateway.get("/x", bearer(mint_token()), f"Origin: {ORIGIN}")

    assert reply.all("access-control-allow-origin") == ["https://of-the-upstream.example"]


NAVIGATION = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"


async def test_navigation_is_refused_with_a_page_and_a_way_to_sign_in(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/x?a=b&c=<d>", NAVIGATION)

    assert reply.status == 401
    assert reply.get("content-type") == "text/html; charset=utf-8"
    assert "default-src 'none'" in (reply.get("content-security-policy") or "")
    assert reply.get("cache-control") == "no-store"
    assert reply.challenge.error is None
    assert (
        b"https://accounts.example.test/sign-in?redirect_url=https%3A%2F%2Fapp.example.test%2Fx%3Fa%3Db" in reply.body
    )
    assert b"<d>" not in reply.body


@pytest.mark.parametrize("target,status", [("/admins/x", 403), ("/nowhere", 404)])
async def test_page_offers_to_sign_in_only_where_that_helps(
    gateway: GatewayUnderTest, target: str, status: int
) -> None:
    reply = await gateway.get(target, NAVIGATION, bearer(mint_token()))

    assert reply.status == status
    assert reply.get("content-type") == "text/html; charset=utf-8"
    assert b"sign-in" not in reply.body


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/problem+json, */*"])
async def test_client_that_does_not_ask_for_a_page_gets_a_problem(gateway: GatewayUnderTest, accept: str) -> None:
    reply = await gateway.get("/x", f"Accept: {accept}")

    assert reply.code == "credential_missing"


ACCEPTS = {
    "application/json;q=0.9, text/html;q=0.1": "application/problem+json",
    "application/json, text/html;q=0.5": "application/problem+json",
    "text/html;q=0": "application/problem+json",
    "*/*": "application/problem+json",
    "text/html": "text/html; charset=utf-8",
    "text/html;q=0.5, */*;q=0.1": "text/html; charset=utf-8",
    "text/html;q=x, application/json": "application/problem+json",
}


@pytest.mark.parametrize(("accept", "media_type"), ACCEPTS.items(), ids=ACCEPTS.keys())
async def test_refusals_come_as_the_client_prefers(gateway: GatewayUnderTest, accept: str, media_type: str) -> None:
    reply = await gateway.get("/x", f"Accept: {accept}")

    assert reply.status == 401
    assert reply.get("content-type") == media_type


async def test_a_target_that_cannot_stand_is_refused_with_a_page_too(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/public/%zz", NAVIGATION)

    assert reply.status == 400
    assert reply.get("content-type") == "text/html; charset=utf-8"
