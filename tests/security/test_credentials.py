"""Whose credentials count, which of them are refused how, and that none of them goes up unasked."""

import pytest

from tests.support.gateway import ORIGIN, PUBLISHABLE_KEY, GatewayUnderTest, gateway_under_test, mint_token
from tests.support.wire import bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS = {
    "routes": [
        {"path": "/public/**", "auth": "none", "upstream": "app"},
        {"path": "/optional/**", "auth": "optional", "upstream": "app"},
        {"path": "/forwarded/**", "auth": "required", "forward_credentials": True, "upstream": "app"},
        {"path": "/forwarded-public/**", "auth": "none", "forward_credentials": True, "upstream": "app"},
        {"path": "/agents/**", "auth": "required", "accept": ["agent_token"], "upstream": "app"},
        {"path": "/**", "auth": "required", "upstream": "app"},
    ]
}
ANYWHERE = ("/x", "/public/x", "/optional/x")


def session_cookie(token: str) -> str:
    """The Cookie line of a signed-in browser."""
    return f"Cookie: __session={token}; __client_uat=1"


@pytest.mark.parametrize("spelling", ["Bearer {}", "bearer {}", "BEARER {}", "{}"])
async def test_j19_bearer_in_any_case_and_the_bare_token_sign_in(gateway: GatewayUnderTest, spelling: str) -> None:
    reply = await gateway.get("/x", "Authorization: " + spelling.format(mint_token()))

    assert reply.status == 200
    assert gateway.upstream.last.all("authorization") == []


@pytest.mark.parametrize(
    "value", ["Bearer", "Bearer ", "Bearer  {}", "Bearer {} y", "Bearer\t{}", "Bearer, {}", "bearer:{}"]
)
@pytest.mark.parametrize("target", ["/x", "/optional/x"])
async def test_j19_bearer_that_breaks_its_grammar_is_malformed(
    gateway: GatewayUnderTest, target: str, value: str
) -> None:
    reply = await gateway.get(target, "Authorization: " + value.format(mint_token()))

    assert reply.status == 400
    assert reply.challenge.error == "invalid_request"
    assert gateway.upstream.received == []


@pytest.mark.parametrize("value", ["Basic dTpw", "Digest a=b", "AWS4-HMAC-SHA256 x", "Bearers x", ""])
async def test_j19_another_scheme_counts_as_no_credential(gateway: GatewayUnderTest, value: str) -> None:
    reply = await gateway.get("/x", f"Authorization: {value}")

    assert reply.status == 401
    assert reply.code == "credential_missing"
    assert reply.challenge.error is None


@pytest.mark.parametrize("value", ["Bearer a.b.c", "Bearer x", "x", "Bearer ....", "Bearer agt_x", "Bearer ags_x"])
async def test_j19_token_that_is_none_is_invalid(gateway: GatewayUnderTest, value: str) -> None:
    reply = await gateway.get("/x", f"Authorization: {value}")

    assert reply.status == 401
    assert reply.challenge.error == "invalid_token"


async def test_j18_bearer_counts_before_the_cookie(gateway: GatewayUnderTest) -> None:
    header, cookie = mint_token(sid="sess_2header"), mint_token(sid="sess_2cookie")

    reply = await gateway.get("/x", bearer(header), session_cookie(cookie))

    assert reply.status == 200
    assert gateway.upstream.last.one("x-actor-session-id") == "sess_2header"


@pytest.mark.parametrize("times", [1, 2])
async def test_j18_two_good_credentials_of_different_users_conflict(gateway: GatewayUnderTest, times: int) -> None:
    one, other = mint_token(sub="user_2one"), mint_token(sub="user_2another")

    for _ in range(times):  # the second time from memory
        reply = await gateway.get("/x", bearer(one), session_cookie(other))

        assert reply.status == 400
        assert reply.code == "credential_conflict"
        assert reply.challenge.error == "invalid_request"
    assert gateway.upstream.received == []


async def test_j18_credential_that_does_not_count_makes_nobody_known(gateway: GatewayUnderTest) -> None:
    await gateway.get("/x", bearer(mint_token()))
    before = await gateway.metric("gateway_provisioned_users_total")

    await gateway.get("/x", bearer(mint_token()), session_cookie(mint_token(sub="user_2onlyInTheCookie")))

    assert await gateway.metric("gateway_provisioned_users_total") == before


@pytest.mark.parametrize(
    "cookie",
    [
        session_cookie(mint_token(sub="user_2other", now=0)),
        session_cookie("garbage"),
        session_cookie(mint_token(sub="user_2other", iss="https://other.example")),
        f"Cookie: __session={mint_token(sub='user_2other')}",
    ],
    ids=["expired", "garbage", "other issuer", "without client_uat"],
)
async def test_j18_bad_cookie_beside_a_good_bearer_is_ignored(gateway: GatewayUnderTest, cookie: str) -> None:
    reply = await gateway.get("/x", bearer(mint_token()), cookie)

    assert reply.status == 200
    assert gateway.upstream.last.all("cookie") == []


async def test_j18_good_cookie_does_not_heal_a_bad_bearer(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/x", bearer("garbage"), session_cookie(mint_token()))

    assert reply.status == 401
    assert reply.code == "invalid_token"


async def test_cookie_alone_signs_in(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/x", session_cookie(mint_token()))

    assert reply.status == 200
    assert gateway.upstream.last.one("x-actor-auth") == "session"


async def test_another_scheme_beside_a_cookie_is_ignored_and_stays(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/x", "Authorization: Basic dTpw", session_cookie(mint_token()))

    assert reply.status == 200
    assert gateway.upstream.last.all("authorization") == []


async def test_bad_credential_on_an_optional_route_is_no_anonymous_one(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/optional/x", bearer(mint_token(now=0)))

    assert reply.status == 401
    assert reply.code == "invalid_token"
    assert gateway.upstream.received == []


@pytest.mark.parametrize("key", [PUBLISHABLE_KEY, PUBLISHABLE_KEY.replace("pk_live_", "pk_test_")])
async def test_sign_of_a_session_elsewhere_is_no_credential_on_an_optional_route(
    module_database_url: str, fast_lane: bool, key: str
) -> None:
    clerk = {"publishable_key": key}
    async with gateway_under_test(
        module_database_url, fast_lane=fast_lane, clerk=clerk, routes=SETTINGS["routes"]
    ) as gateway:
        optional = await gateway.get("/optional/x", "Cookie: __client_uat=1")
        required = await gateway.get("/x", "Cookie: __client_uat=1")
        with_session = await gateway.get("/optional/x", f"Cookie: __session={mint_token()}")

    assert (optional.status, required.status, with_session.status) == (200, 401, 401)
    assert gateway.upstream.last.one("x-actor-id") == ""


async def test_good_credential_on_an_optional_route_is_somebody(gateway: GatewayUnderTest) -> None:
    await gateway.get("/optional/x", bearer(mint_token()))

    assert gateway.upstream.last.one("x-actor-id").startswith("usr_")


async def test_kind_the_route_does_not_name_is_refused(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/agents/x", bearer(mint_token()))

    assert reply.status == 401
    assert gateway.upstream.received == []


@pytest.mark.parametrize("target", ANYWHERE)
async def test_credentials_of_ours_never_go_up(gateway: GatewayUnderTest, target: str) -> None:
    token = mint_token()
    cookies = f"__session={token}; __client_uat=1; __session_MqCvchyS={token}; __refresh_MqCvchyS=r; __clerk_db_jwt=d"

    reply = await gateway.get(target, bearer(token), f"Cookie: {cookies}; __clerk_handshake=h; theme=dark")

    seen = gateway.upstream.last
    assert reply.status == 200
    assert seen.all("authorization") == []
    assert seen.one("cookie") == "theme=dark"
    assert token.encode() not in seen.head


@pytest.mark.parametrize("value", [" agt_abc", "agt_abc"])
async def test_api_key_of_ours_never_goes_up(gateway: GatewayUnderTest, value: str) -> None:
    reply = await gateway.get("/public/x", f"X-API-Key: {value}", "X_API_Key: agt_abc", "x.api.key: agt_abc")

    assert reply.status == 200
    assert b"agt_" not in gateway.upstream.last.head


async def test_api_key_of_the_application_goes_up(gateway: GatewayUnderTest) -> None:
    await gateway.get("/x", bearer(mint_token()), "X-API-Key: theirs")

    assert gateway.upstream.last.one("x-api-key") == "theirs"


async def test_api_key_alone_is_checked_like_any_credential(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/x", "X-API-Key: agt_abc")

    assert reply.status == 401
    assert reply.challenge.error == "invalid_token"


@pytest.mark.parametrize("target", ["/public/x", "/optional/x"])
async def test_another_scheme_goes_up_where_nobody_must_sign_in(gateway: GatewayUnderTest, target: str) -> None:
    reply = await gateway.get(target, "Authorization: Basic dTpw")

    assert reply.status == 200
    assert gateway.upstream.last.one("authorization") == "Basic dTpw"
    assert gateway.upstream.last.one("x-actor-id") == ""


OURS = {"session": mint_token(), "api token": "agt_x", "system token": "ags_x", "unreadable token": "eyJ.eyJ.x"}


@pytest.mark.parametrize("token", OURS.values(), ids=OURS.keys())
@pytest.mark.parametrize(
    "line",
    [
        "Authorization: Bearer {}",
        "Authorization: bearer {}",
        "Authorization: Bearer {} x",
        "Authorization: Bearer\t{}",
        "Authorization: Bearer  {},",
        'Authorization: Bearer token="{}"',
        "Authorization: bearer:{}",
        "X-API-Key: {}",
        "X-API-Key: {}, theirs",
    ],
)
async def test_no_token_of_ours_goes_up_where_none_is_read(gateway: GatewayUnderTest, line: str, token: str) -> None:
    reply = await gateway.get("/public/x", line.format(token))

    assert reply.status == 200
    assert token.encode() not in gateway.upstream.last.head


FOREIGN = {"opaque": "ghp_16C7e42F292c6912E7", "another issuer's": mint_token(iss="https://accounts.google.com")}


@pytest.mark.parametrize("token", FOREIGN.values(), ids=FOREIGN.keys())
@pytest.mark.parametrize("line", ["Authorization: Bearer {}", "X-API-Key: {}"])
async def test_foreign_tokens_go_up_where_none_is_read(gateway: GatewayUnderTest, line: str, token: str) -> None:
    await gateway.get("/public/x", line.format(token))

    assert gateway.upstream.last.one(line.partition(":")[0]).endswith(token)


@pytest.mark.parametrize(
    "cookie",
    [
        'prefs={"a":1}; theme="d;ark"; x=%3B; =odd; lone;  spaced = v ',
        "a=1",
        "__Host-session=1; __sessions=2; __client_uats=3; my__session=4",
        "a=\xe9\xff",
    ],
)
async def test_other_cookies_pass_byte_for_byte(gateway: GatewayUnderTest, cookie: str) -> None:
    await gateway.get("/public/x", f"Cookie: {cookie}")

    assert gateway.upstream.last.one("cookie") == cookie.strip()


async def test_cookies_after_an_empty_cookie_field_pass(gateway: GatewayUnderTest) -> None:
    await gateway.get("/public/x", "Cookie:", f"Cookie: a=1; __session={mint_token()}", "Cookie: b=2")

    assert gateway.upstream.last.one("cookie") == "a=1; b=2"


@pytest.mark.parametrize("target", ["/forwarded/x", "/forwarded-public/x"])
async def test_route_that_forwards_credentials_sends_them_as_they_came(gateway: GatewayUnderTest, target: str) -> None:
    token = mint_token()

    reply = await gateway.get(target, bearer(token), f"Cookie: theme=dark; __session={token}; __client_uat=1")

    seen = gateway.upstream.last
    assert reply.status == 200
    assert seen.one("authorization") == f"Bearer {token}"
    assert seen.one("cookie") == f"theme=dark; __session={token}; __client_uat=1"


@pytest.mark.parametrize("target", ["/forwarded/x", "/forwarded-public/x"])
async def test_of_several_cookies_of_one_name_none_goes_up_there_either(gateway: GatewayUnderTest, target: str) -> None:
    mine, other = mint_token(sub="user_mine"), mint_token(sub="user_other")

    reply = await gateway.get(
        target, f"Cookie: a=1; __session={mine}; __client_uat=1", f"Cookie: __session={other}; a=2"
    )

    assert reply.status == 200
    assert gateway.upstream.last.one("cookie") == "a=1; __client_uat=1; a=2"


async def test_f02_f03_forwarding_fields_of_a_stranger_are_dropped_and_rewritten(gateway: GatewayUnderTest) -> None:
    told = ("Uri", "Method", "Host", "Prefix", "Port", "Proto", "Server", "Ssl", "For", "User", "Scheme", "Path")
    lines = [f"X-Forwarded-{name}: /public/spoofed" for name in told]
    lines += ["Forwarded: for=spoofed", "X-Original-URL: /public/spoofed", "X-Rewrite-URL: /public/spoofed"]
    lines += ["X-Envoy-Original-Path: /public/spoofed", "X-Real-IP: spoofed", "X_Forwarded_For: spoofed"]

    anonymous = await gateway.get("/x", *lines)
    await gateway.get("/x?q", bearer(mint_token()), *lines)

    seen = gateway.upstream.last
    assert anonymous.status == 401
    assert seen.target == b"/x?q"
    assert b"spoofed" not in seen.head
    assert seen.one("x-forwarded-for") == "127.0.0.1"
    assert seen.one("x-forwarded-proto") == "http"
    assert seen.one("x-forwarded-host") == "app.example.test"
    assert seen.one("x-forwarded-port") == "80"


async def test_f03_method_override_is_the_applications_affair(gateway: GatewayUnderTest) -> None:
    await gateway.ask(request("/public/x", "X-HTTP-Method-Override: DELETE", method="POST", body=b"x"))

    assert gateway.upstream.last.request_line == b"POST /public/x HTTP/1.1"


async def test_request_id_of_a_stranger_is_replaced(gateway: GatewayUnderTest) -> None:
    await gateway.get("/public/x", "X-Request-Id: chosen-by-a-client", f"Origin: {ORIGIN}")

    assert gateway.upstream.last.one("x-request-id") != "chosen-by-a-client"


async def test_trace_context_is_continued_with_a_span_of_our_own(gateway: GatewayUnderTest) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    await gateway.get("/public/x", f"traceparent: 00-{trace}-b7ad6b7169203331-01", "tracestate: a=b")

    version, trace_id, span, flags = gateway.upstream.last.one("traceparent").split("-")
    assert (version, trace_id, flags) == ("00", trace, "01")
    assert span != "b7ad6b7169203331"
    assert gateway.upstream.last.one("tracestate") == "a=b"


@pytest.mark.parametrize("value", ["garbage", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "ff-0-0-0"])
async def test_trace_context_that_is_none_is_replaced(gateway: GatewayUnderTest, value: str) -> None:
    await gateway.get("/public/x", f"traceparent: {value}", "tracestate: a=b")

    assert len(gateway.upstream.last.one("traceparent")) == 55
    assert value not in gateway.upstream.last.one("traceparent")
    assert gateway.upstream.last.all("tracestate") == []
