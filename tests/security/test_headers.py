"""Which fields reach the upstream, and which identity is among them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.fields import IDENTITY_NAMES
from tests.support.clerk_keys import ABSENT
from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.upstream import answering
from tests.support.wire import bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
IDENTITY = [name.decode() for name in IDENTITY_NAMES]
ALIASES = (
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "Remote-User",
    "Remote-Groups",
    "Remote-Email",
    "Remote-Name",
    "X-Clerk-Auth-Status",
    "X-Clerk-Auth-Token",
    "X-Goog-IAP-JWT-Assertion",
    "X-Goog-Authenticated-User-Email",
    "Cf-Access-Jwt-Assertion",
    "X-Pomerium-Jwt-Assertion",
    "X-Authentik-Username",
    "X-Consumer-Id",
    "X-Envoy-Original-Path",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Real-IP",
    "Forwarded",
)


async def test_h01_identity_in_any_case_is_the_gateways_own(gateway: GatewayUnderTest) -> None:
    await gateway.get("/x", bearer(mint_token()), "x-ACTOR-id: admin", "X-Actor-Id: admin", "X-ACTOR-ROLE: ADMIN")

    assert gateway.upstream.last.one("x-actor-id").startswith("usr_")
    assert gateway.upstream.last.one("x-actor-role") == "USER"


@pytest.mark.parametrize("name", ["X_Actor_Id", "x_actor_id", "X-Actor_Id", "X_ACTOR-ID"])
async def test_h02_identity_with_underscores_is_dropped(gateway: GatewayUnderTest, name: str) -> None:
    await gateway.get("/x", bearer(mint_token()), f"{name}: admin")

    assert gateway.upstream.last.one("x-actor-id").startswith("usr_")


async def test_h02_dropped_identity_is_counted(gateway: GatewayUnderTest) -> None:
    before = await gateway.metric("gateway_identity_claims_dropped_total")

    await gateway.get(
        "/public/x", "X_Actor_Id: admin", "Remote-User: admin", "TE: trailers", "X-Request-Id: honest-one"
    )

    assert await gateway.metric("gateway_identity_claims_dropped_total") == before + 2


@pytest.mark.parametrize(
    "name", ["X.Actor.Id", "X-Actor.Id", "Remote_Groups", "remote.user", "X+Actor+Id", "X!Actor~Id"]
)
async def test_h03_identity_in_other_spellings_is_dropped(gateway: GatewayUnderTest, name: str) -> None:
    await gateway.get("/x", bearer(mint_token()), f"{name}: spoofed")

    assert b"spoofed" not in gateway.upstream.last.head


@pytest.mark.parametrize("name", ["X-Actor-Id\x85", "X\xadActor-Id", "X-Actor-Id\x00"])
async def test_h03_name_with_octets_no_name_has_is_refused(gateway: GatewayUnderTest, name: str) -> None:
    reply = await gateway.get("/x", bearer(mint_token()), f"{name}: admin")

    assert reply.status == 400
    assert gateway.upstream.received == []


@pytest.mark.parametrize("target", ["/x", "/public/x", "/optional/x"])
async def test_h04_names_other_gateways_use_are_dropped_on_all_routes(gateway: GatewayUnderTest, target: str) -> None:
    lines = [f"{spelling}: spoofed" for name in ALIASES for spelling in (name, name.upper().replace("-", "_"))]

    reply = await gateway.get(target, bearer(mint_token()), *lines)

    assert reply.status == 200
    assert b"spoofed" not in gateway.upstream.last.head


@pytest.mark.parametrize(
    "line",
    [
        "Connection: close, X-Actor-Id, x-organization-id",
        "Connection: keep-alive,\tx-actor-id",
        "Connection: X_Actor_Id",
        "Connection: X-Request-Id, X-Forwarded-For, traceparent",
    ],
)
async def test_h05_identity_cannot_be_nominated_away(gateway: GatewayUnderTest, line: str) -> None:
    await gateway.get("/x", bearer(mint_token()), line)

    seen = gateway.upstream.last
    assert seen.one("x-actor-id").startswith("usr_")
    assert seen.one("x-organization-id").startswith("org_")
    assert all(len(seen.all(name)) == 1 for name in (*IDENTITY, "x-request-id", "x-forwarded-for", "traceparent"))


async def test_h06_framing_host_and_credentials_cannot_be_nominated_away(gateway: GatewayUnderTest) -> None:
    lines = (
        "Connection: Host, Authorization, Cookie, Content-Length",
        "Connection: Transfer-Encoding, Content-Type, X-Mine",
        "Cookie: theme=dark",
        "Content-Type: text/plain",
        "X-Mine: 1",
        "X-Other: 2",
    )

    reply = await gateway.ask(request("/x", bearer(mint_token()), *lines, method="POST", body=b"hello"))

    seen = gateway.upstream.last
    assert reply.status == 200
    assert seen.body == b"hello"
    assert seen.one("host") == "app.example.test"
    assert seen.one("cookie") == "theme=dark"
    assert seen.one("content-type") == "text/plain"
    assert seen.one("x-other") == "2"
    assert seen.all("x-mine") == []
    assert seen.all("connection") == []


@pytest.mark.parametrize("target", ["/public/x", "/optional/x"])
async def test_h07_anonymous_route_sends_every_identity_field_once_and_empty(
    gateway: GatewayUnderTest, target: str
) -> None:
    await gateway.get(target, *(f"{name}: spoofed" for name in IDENTITY))

    seen = gateway.upstream.last
    assert {name: seen.all(name) for name in IDENTITY} == {name: [""] for name in IDENTITY}
    assert seen.one("x-request-id")


async def test_h07_route_without_auth_reads_no_credential(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/public/x", bearer(mint_token()))

    assert reply.status == 200
    assert gateway.upstream.last.one("x-actor-id") == ""
    assert gateway.upstream.last.all("authorization") == []


@pytest.mark.parametrize("target", ["/x", "/public/x", "/optional/x"])
async def test_h08_two_authorization_fields_are_refused(gateway: GatewayUnderTest, target: str) -> None:
    reply = await gateway.get(target, bearer(mint_token()), bearer(mint_token(sub="user_2other")))

    assert reply.status == 400
    assert reply.code == "invalid_request"
    assert reply.challenge.error == "invalid_request"
    assert gateway.upstream.received == []


async def test_h09_doubled_identity_is_dropped(gateway: GatewayUnderTest) -> None:
    await gateway.get("/x", bearer(mint_token()), "X-Actor-Id: a", "X-Actor-Id: b")

    assert gateway.upstream.last.one("x-actor-id").startswith("usr_")


async def test_h09_of_several_session_cookies_the_first_counts_and_none_goes_up(gateway: GatewayUnderTest) -> None:
    good = mint_token()

    reply = await gateway.get("/x", f"Cookie: __session={good}; __client_uat=1", "Cookie: __session=bad; theme=dark")

    assert reply.status == 200
    assert gateway.upstream.last.one("cookie") == "theme=dark"


@pytest.mark.parametrize(
    "line",
    [
        b"X-A: a\x00b",
        b"X-A: a\rb",
        b"X-A: a\nX-Actor-Id: admin",
        b"X-A: a\x0bb",
        b"X-A: a\x7fb",
        b"X-Actor-Id : admin",
        b"X-Actor-Id\t: admin",
        b"X-A: a\r\n X-Actor-Id: admin",
        b" X-A: a",
        b": a",
        b"X-A",
    ],
)
async def test_h10_field_that_breaks_the_grammar_is_refused_and_the_connection_closed(
    gateway: GatewayUnderTest, line: bytes
) -> None:
    head = f"GET /public/x HTTP/1.1\r\nHost: app.example.test\r\n{bearer(mint_token())}\r\n".encode()
    async with gateway.wire() as wire:
        reply = await wire.ask(head + line + b"\r\n\r\n")

        assert reply.status == 400
        assert reply.code == "request_malformed"
        assert await wire.closed()
    assert gateway.upstream.received == []


async def test_h10_blanks_around_a_value_are_no_part_of_it(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/x", f"Authorization: \t Bearer {mint_token()} \t", "X-A:  b \t")

    assert reply.status == 200
    assert b"X-A: b\r\n" in gateway.upstream.last.head + b"\r\n"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PROPFIND"])
async def test_h11_every_method_carries_the_gateways_identity_alone(gateway: GatewayUnderTest, method: str) -> None:
    lines = [f"{name}: spoofed" for name in (*IDENTITY, *ALIASES)]

    reply = await gateway.ask(request("/x", bearer(mint_token()), *lines, method=method))

    assert reply.status == 200
    assert b"spoofed" not in gateway.upstream.last.head
    assert gateway.upstream.last.one("x-actor-id").startswith("usr_")


async def test_h11_trace_is_refused(gateway: GatewayUnderTest) -> None:
    reply = await gateway.ask(request("/public/x", "X-Actor-Id: spoofed", method="TRACE"))

    assert reply.status == 405
    assert b"spoofed" not in reply.body
    assert gateway.upstream.received == []


async def test_h11_upgrade_reaches_nobody_with_a_spoofed_identity(gateway: GatewayUnderTest) -> None:
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "X-Actor-Id: spoofed")
    reply = await gateway.get("/public/x", *upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")

    assert reply.status == 502  # this upstream answers 200, which is no switch
    assert all(b"spoofed" not in seen.head for seen in gateway.upstream.received)


@pytest.mark.parametrize("slug", ["a\r\nX-Actor-Role: ADMIN", "x" * 3_000, "münchen", "a,b"])
async def test_h12_words_of_a_token_break_no_line(gateway: GatewayUnderTest, slug: str) -> None:
    organization = {"id": "org_2slugs", "slg": slug, "rol": "member"}
    token = mint_token(o=organization, name=slug, email="a@evil.example@company.example")

    reply = await gateway.get("/x", bearer(token))

    assert reply.status == 200
    assert gateway.upstream.last.one("x-actor-role") == "USER"
    assert gateway.upstream.last.head.isascii()


@pytest.mark.parametrize(
    "member", [{"id": "org_1\r\nX-A: b"}, {"id": "org_1", "rol": "admin\r\nX-A: b"}, {"id": "org 1"}]
)
async def test_h12_ids_and_roles_that_are_no_single_word_are_refused(
    gateway: GatewayUnderTest, member: dict[str, str]
) -> None:
    reply = await gateway.get("/x", bearer(mint_token(o=member)))

    assert reply.status == 401
    assert gateway.upstream.received == []


async def test_h12_permissions_over_the_cap_are_left_out_whole(gateway: GatewayUnderTest) -> None:
    listed = [f"org:feature:permission-{number:04}" for number in range(300)]
    token = mint_token(v=ABSENT, org_id="org_2many", org_role="org:member", org_permissions=listed)

    reply = await gateway.get("/x", bearer(token))

    assert reply.status == 200
    assert gateway.upstream.last.one("x-organization-permissions") == ""


async def test_h13_identity_in_an_answer_is_not_relayed(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond = answering(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Actor-Id: usr_leak\r\nx_actor_assertion: leak\r\n"
        b"X-Organization-Id: leak\r\nX-Feature-Flags: leak\r\nX-Forwarded-For: leak\r\nX-Clerk-Auth-Token: leak\r\n"
        b"traceparent: leak\r\n"
        b"Connection: Set-Cookie, X-Nominated\r\nX-Nominated: leak\r\nKeep-Alive: leak\r\n"
        b"Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2, c=3\r\nX-Own: kept\r\n\r\nok"
    )

    reply = await gateway.get("/x", bearer(mint_token()))

    assert reply.status == 200
    assert not any("leak" in value for _, value in reply.fields)
    assert reply.all("set-cookie") == ["a=1; Path=/", "b=2, c=3"]
    assert reply.get("x-own") == "kept"


NAMES = st.one_of(
    st.sampled_from([*IDENTITY, *ALIASES, "Accept", "X-Mine"]),
    st.text("abcdeoritx-_.", min_size=1, max_size=16),
)


@given(st.lists(st.tuples(NAMES, st.booleans(), st.sampled_from("-_.")), max_size=12))
@settings(max_examples=60, deadline=None)
async def test_client_cannot_choose_its_own_identity(
    module_gateway: GatewayUnderTest, names: list[tuple[str, bool, str]]
) -> None:
    lines = [f"{(name.upper() if upper else name).replace('-', mark)}: spoofed" for name, upper, mark in names]

    await module_gateway.get("/public/x", *lines)

    assert all(module_gateway.upstream.last.all(name) == [""] for name in IDENTITY)


@pytest.mark.parametrize("name", ["Content-Type", "User-Agent", "Content-Range", "ETag", "Max-Forwards", "Server"])
async def test_a_field_that_has_one_value_by_its_definition_comes_once(gateway: GatewayUnderTest, name: str) -> None:
    one, two = f"{name}: 1", f"{name.lower()}: 2"

    reply = await gateway.get("/public/x", one, two)

    assert reply.status == 400
    assert gateway.upstream.received == []
