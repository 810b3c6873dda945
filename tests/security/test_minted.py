"""W05, W06, J13, J18, L02, L03, T07: tokens the gateway mints, where they count, and that they stay here."""

from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from gateway.credentials.kinds import CredentialKind
from tests.support.clerk_keys import ABSENT
from tests.support.gateway import ORIGIN, GatewayUnderTest, mint_token
from tests.support.minted import ROUTES, ask_for_token, claims_of, current_user, signed, websocket_token
from tests.support.upstream import answering_and_closing
from tests.support.websockets import handshake, switching, then_echo
from tests.support.wire import Reply, bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {"routes": ROUTES, "clerk": {"sign_in_url": "https://accounts.example.test/sign-in"}}
PAIR = "Sec-WebSocket-Protocol: bearer, {}"
COOKIE = "Cookie: __session={}; __client_uat=1"


async def opened(gateway: GatewayUnderTest, target: str, *lines: str, answer: bytes | None = None) -> bytes:
    """Open a websocket, and leave; gives the head of the 101."""
    gateway.upstream.respond_early = then_echo(answer or switching())
    async with gateway.wire() as wire:
        await wire.send(handshake(target, *lines))
        head = await wire.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    return head


async def refused(gateway: GatewayUnderTest, target: str, *lines: str) -> Reply:
    """Ask for a websocket and be refused before anybody is dialled."""
    dialled = len(gateway.upstream.received)
    reply = await gateway.ask(handshake(target, *lines))
    assert len(gateway.upstream.received) == dialled
    return reply


async def reason_of(gateway: GatewayUnderTest, reason: str, kind: str = "websocket_token") -> float:
    return await gateway.metric("gateway_auth_decisions_total", kind=kind, reason=reason)


@pytest.mark.parametrize("carried", ["query", "pair", "both"])
async def test_w05_token_opens_a_websocket_and_goes_no_further(gateway: GatewayUnderTest, carried: str) -> None:
    token = await websocket_token(gateway)
    target = "/ws/a?b=1&token={}&c=%20" if carried != "pair" else "/ws/a?b=1&c=%20"
    lines = [PAIR.format(token)] if carried != "query" else []

    head = await opened(gateway, target.format(token), *lines, f"Referer: {ORIGIN}/ws/a?token={token}&d=1")

    seen = gateway.upstream.last
    assert seen.target == b"/ws/a?b=1&c=%20"
    assert seen.one("referer") == f"{ORIGIN}/ws/a?d=1"
    assert seen.all("sec-websocket-protocol") == []
    assert seen.one("x-actor-auth") == "websocket_token"
    assert seen.one("x-actor-id").startswith("usr_")
    assert seen.one("x-actor-session-id") == "sess_2testSession"
    assert token.encode() not in seen.head + head


@pytest.mark.parametrize(
    ("offer", "chosen", "told"),
    [
        ("bearer, {}", None, b"bearer"),
        ("Bearer, {}", None, b"Bearer"),
        ("bearer, {}, v1", "v1", b"v1"),
        ("v2, bearer, {}, v1", "v2", b"v2"),
        ("bearer, {}, v1", None, None),
    ],
)
async def test_w05_only_a_real_subprotocol_is_agreed_on_and_the_mark_where_there_is_none(
    gateway: GatewayUnderTest, offer: str, chosen: str | None, told: bytes | None
) -> None:
    token = await websocket_token(gateway)
    answer = switching(*([f"Sec-WebSocket-Protocol: {chosen}"] if chosen else []))

    head = await opened(gateway, "/ws/a", f"Sec-WebSocket-Protocol: {offer.format(token)}", answer=answer)

    lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-protocol")]
    assert lines == ([b"Sec-WebSocket-Protocol: " + told] if told else [])
    assert token.encode() not in gateway.upstream.last.head


@pytest.mark.parametrize("chosen", ["bearer", "{}"])
async def test_w05_upstream_cannot_agree_on_what_it_was_not_offered(gateway: GatewayUnderTest, chosen: str) -> None:
    token = await websocket_token(gateway)
    gateway.upstream.respond_early = then_echo(switching(f"Sec-WebSocket-Protocol: {chosen.format(token)}"))

    reply = await gateway.ask(handshake("/ws/a", PAIR.format(f"{token}, v1")))

    assert (reply.status, reply.code) == (502, "upstream_malformed")


async def test_w05_declined_upgrade_is_relayed_without_the_token(gateway: GatewayUnderTest) -> None:
    token = await websocket_token(gateway)
    gateway.upstream.respond_early = answering_and_closing(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    reply = await gateway.ask(handshake(f"/ws/a?token={token}", PAIR.format(token), f"Referer: /ws?token={token}"))

    assert reply.status == 403
    assert token.encode() not in gateway.upstream.last.head


async def test_w05_a_path_keeps_the_token_that_is_not_ours(gateway: GatewayUnderTest) -> None:
    token = await websocket_token(gateway)
    await gateway.get("/x?token=reset-1", bearer(mint_token()))
    await gateway.get("/ws/x?token=reset-2", bearer(mint_token()))
    await gateway.ask(handshake("/public/ws?token=theirs", "Sec-WebSocket-Protocol: bearer, theirs"))
    await gateway.get(f"/ws/x?a=1&token={token}", bearer(mint_token()), f"Referer: {ORIGIN}/?token={token}&token=a")

    targets = [seen.target for seen in gateway.upstream.received]
    assert targets == [b"/x?token=reset-1", b"/ws/x?token=reset-2", b"/public/ws?token=theirs", b"/ws/x?a=1"]
    assert gateway.upstream.received[2].one("sec-websocket-protocol") == "bearer, theirs"
    assert gateway.upstream.last.one("referer") == f"{ORIGIN}/?token=a"


@pytest.mark.parametrize("target", ["/x", "/agents/x", "/system/x", "/users/current", "/ws/x", "/maybe/x"])
@pytest.mark.parametrize("carried", ["header", "query", "pair"])
async def test_w06_t07_websocket_token_is_nothing_to_a_plain_request(
    gateway: GatewayUnderTest, target: str, carried: str
) -> None:
    token = await websocket_token(gateway)
    line = {"header": bearer(token), "query": "Accept: */*", "pair": PAIR.format(token)}[carried]

    reply = await gateway.get(f"{target}?token={token}" if carried == "query" else target, line)

    passes = target == "/maybe/x" and carried != "header"
    assert reply.status == (200 if passes else 401)
    assert reply.status == 200 or reply.challenge.error == ("invalid_token" if carried == "header" else None)
    assert not passes or gateway.upstream.last.one("x-actor-id") == ""


@pytest.mark.parametrize("target", ["/x", "/agents/x"])
async def test_w06_websocket_token_opens_no_route_that_does_not_name_it(gateway: GatewayUnderTest, target: str) -> None:
    token = await websocket_token(gateway)

    for reply in (
        await refused(gateway, f"{target}?token={token}"),
        await refused(gateway, target, PAIR.format(token)),
        await refused(gateway, target, bearer(token)),
    ):
        assert reply.status == 401


async def test_w06_websocket_token_is_not_carried_in_authorization(gateway: GatewayUnderTest) -> None:
    before = await reason_of(gateway, "minted_carrier")

    reply = await refused(gateway, "/ws/a", bearer(await websocket_token(gateway)))

    assert reply.challenge.error == "invalid_token"
    assert await reason_of(gateway, "minted_carrier") == before + 1


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"exp": 1_700_000_000}, "minted_expired"),
    "from_the_future": ({"iat": 4_000_000_000, "exp": 4_000_000_060}, "minted_invalid"),
    "other_use": ({"token_use": "agent_token"}, "minted_invalid"),
    "an_assertion": ({"token_use": None}, "minted_invalid"),
    "other_audience": ({"aud": "agent"}, "minted_invalid"),
    "other_issuer": ({"iss": "https://elsewhere.example"}, "minted_invalid"),
    "other_instance": ({"clerk": {"iss": "https://clerk.elsewhere", "sub": "user_2testSubject"}}, "minted_invalid"),
    "no_expiry": ({"exp": None}, "minted_invalid"),
    "no_organization": ({"org": None}, "minted_invalid"),
    "malformed": ({"scopes": "a b"}, "minted_invalid"),
    "other_path": ({"path": "/ws/b"}, "minted_path"),
    "other_origin": ({"origin": "https://evil.example"}, "minted_origin"),
    "other_user": ({"sub": "usr_0000000000000000000000"}, "minted_parent_gone"),
    "other_organization": ({"org": {"id": "org_x", "role": "admin", "permissions": []}}, "minted_parent_gone"),
    "never_seen": ({"clerk": {"iss": "https://clerk.example.test", "sub": "user_2nobody"}}, "minted_parent_gone"),
    "left": (
        {"clerk": {"iss": "https://clerk.example.test", "sub": "user_2testSubject", "org": "org_2left"}},
        "minted_parent_gone",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
async def test_w06_token_that_does_not_fit_opens_nothing(gateway: GatewayUnderTest, case: str) -> None:
    changes, reason = CHANGES[case]
    token = signed(gateway, await websocket_token(gateway), **changes)
    before = await reason_of(gateway, reason)

    reply = await refused(gateway, f"/ws/a?token={token}", f"Origin: {ORIGIN}")

    assert (reply.status, reply.challenge.error) == (401, "invalid_token")
    assert await reason_of(gateway, reason) == before + 1


async def test_w06_token_that_nobody_of_us_signed_opens_nothing(gateway: GatewayUnderTest) -> None:
    head, body, signature = (await websocket_token(gateway)).split(".")
    forged = ("A" if signature[0] != "A" else "B") + signature[1:]

    for token in (f"{head}.{body}.{forged}", mint_token(iss=ORIGIN, aud="websocket", token_use="websocket_token")):
        assert (await refused(gateway, f"/ws/a?token={token}")).challenge.error == "invalid_token"


@pytest.mark.parametrize("wish", [{"path": "/ws/only"}, {"origin": "HTTPS://App.example.test:443"}])
async def test_w06_token_may_be_bound_to_a_path_or_an_origin(gateway: GatewayUnderTest, wish: dict[str, str]) -> None:
    token = (await ask_for_token(gateway, wish)).json()["token"]
    refusal = await refused(gateway, f"/ws/other?token={token}", "Origin: https://other.example")

    await opened(gateway, f"/ws/only?token={token}", f"Origin: {ORIGIN}")

    assert refusal.status == 401


async def test_w06_membership_that_is_left_ends_the_tokens_of_it(gateway: GatewayUnderTest) -> None:
    claims = {"sub": "user_2leaver", "o": {"id": "org_2gone", "slg": "gone", "rol": "member"}}
    token = await websocket_token(gateway, **claims)
    changed = signed(gateway, token, org=claims_of(token)["org"] | {"role": "admin"})

    reply = await refused(gateway, f"/ws/a?token={changed}")

    assert reply.status == 401
    assert await reason_of(gateway, "minted_role_changed") >= 1
    await opened(gateway, f"/ws/a?token={token}")
    assert gateway.upstream.last.one("x-organization-role") == "member"


@pytest.mark.parametrize(
    "query", ["token={0}&token={0}", "token=a%20b", "token={0}&%74oken=x"], ids=["twice", "blank", "spelled"]
)
async def test_w06_two_tokens_of_one_carrier_are_malformed(gateway: GatewayUnderTest, query: str) -> None:
    reply = await refused(gateway, "/ws/a?" + query.format(await websocket_token(gateway)))

    assert (reply.status, reply.challenge.error) == (400, "invalid_request")


async def test_j13_a_session_never_comes_from_the_query(gateway: GatewayUnderTest) -> None:
    for reply in (
        await refused(gateway, f"/ws/a?token={mint_token()}"),
        await refused(gateway, "/ws/a", PAIR.format(mint_token())),
        await refused(gateway, f"/x?__session={mint_token()}"),
    ):
        assert reply.status == 401


@pytest.mark.parametrize("target", ["/x", "/ws/x", "/agents/x", "/users/current"])
async def test_j13_assertion_for_an_upstream_is_no_credential(gateway: GatewayUnderTest, target: str) -> None:
    token = await websocket_token(gateway)

    for audience in ("app", "agent", "websocket"):
        assertion = signed(gateway, token, aud=audience, token_use=None)
        reply = await gateway.get(target, bearer(assertion))

        assert (reply.status, reply.challenge.error) == (401, "invalid_token")
        assert (await refused(gateway, f"/ws/a?token={assertion}")).status == 401


async def test_agent_token_calls_where_a_route_names_it_and_only_there(gateway: GatewayUnderTest) -> None:
    agent = (await current_user(gateway))["agentToken"]

    statuses = [(await gateway.get(target, bearer(agent))).status for target in ("/agents/x", "/x", "/users/current")]

    assert statuses == [200, 401, 401]
    assert gateway.upstream.last.one("x-actor-auth") == "agent_token"
    assert gateway.upstream.last.one("x-actor-scopes") == "*"
    assert gateway.upstream.last.all("authorization") == []


async def test_t07_agent_token_is_carried_nowhere_else_and_mints_nothing(gateway: GatewayUnderTest) -> None:
    agent = (await current_user(gateway))["agentToken"]
    target = "/users/current/websocket-token"

    for reply in (
        await refused(gateway, f"/ws/a?token={agent}"),
        await refused(gateway, "/ws/a", PAIR.format(agent)),
        await gateway.get("/agents/x", COOKIE.format(agent)),
        await gateway.get("/agents/x", f"X-API-Key: {agent}"),
        await gateway.ask(request(target, bearer(agent), method="POST")),
        await gateway.ask(request(target, f"X-API-Key: {agent}", method="POST")),
    ):
        assert reply.status == 401


async def test_j18_a_token_beside_the_session_of_the_same_user_yields_to_a_bearer_and_not_to_a_cookie(
    gateway: GatewayUnderTest,
) -> None:
    token = await websocket_token(gateway)
    kinds = []
    for line in (bearer(mint_token()), COOKIE.format(mint_token())):
        await opened(gateway, f"/ws/a?token={token}", line, "Origin: https://elsewhere.example")
        kinds.append(gateway.upstream.last.one("x-actor-auth"))

    assert kinds == ["session", "websocket_token"]


@pytest.mark.parametrize("line", [bearer("{}"), COOKIE], ids=["bearer", "cookie"])
async def test_j18_a_token_beside_the_session_of_another_user_conflicts(gateway: GatewayUnderTest, line: str) -> None:
    token = await websocket_token(gateway)

    reply = await refused(gateway, f"/ws/a?token={token}", line.format(mint_token(sub="user_2another")))

    assert (reply.status, reply.code) == (400, "credential_conflict")


async def test_j18_two_tokens_of_different_users_conflict(gateway: GatewayUnderTest) -> None:
    one, other = await websocket_token(gateway), await websocket_token(gateway, sub="user_2another")

    reply = await refused(gateway, f"/ws/a?token={one}", PAIR.format(other))

    assert (reply.status, reply.code) == (400, "credential_conflict")


async def test_j18_a_stale_lesser_one_is_ignored_and_a_stale_first_one_is_not(gateway: GatewayUnderTest) -> None:
    token = await websocket_token(gateway)
    stale = signed(gateway, token, exp=1_700_000_000)

    await opened(gateway, f"/ws/a?token={stale}", bearer(mint_token()))
    await opened(gateway, f"/ws/a?token={token}", COOKIE.format(mint_token(sub="user_2another", now=0)))
    reply = await refused(gateway, f"/ws/a?token={stale}", COOKIE.format(mint_token()), f"Origin: {ORIGIN}")

    assert (reply.status, reply.challenge.error) == (401, "invalid_token")


async def test_j15_someone_who_acts_as_the_user_still_does_behind_a_minted_token(gateway: GatewayUnderTest) -> None:
    user = await current_user(gateway, act={"iss": "https://x", "sub": "user_2boss", "sid": "sess_2boss"})
    plain = await current_user(gateway)

    await opened(gateway, f"/ws/a?token={user['websocketToken']}")
    opened_by = gateway.upstream.last.one("x-actor-impersonator-id")
    gateway.upstream.respond_early = None
    await gateway.get("/agents/x", bearer(user["agentToken"]))

    assert opened_by == gateway.upstream.last.one("x-actor-impersonator-id") == "user_2boss"
    assert user["websocketToken"] != plain["websocketToken"]
    assert "act" not in claims_of(plain["agentToken"])


async def test_l02_minted_tokens_are_in_no_log_no_metric_no_answer_and_no_link(gateway: GatewayUnderTest) -> None:
    user = await current_user(gateway)
    token, agent = user["websocketToken"], user["agentToken"]
    stale = signed(gateway, token, exp=1_700_000_000)
    structlog.reset_defaults()
    with capture_logs() as lines:
        replies = [
            await gateway.ask(handshake(f"/ws/a?token={stale}")),
            await gateway.ask(handshake("/ws/a", PAIR.format(stale))),
            await gateway.get(f"/ws/a?token={token}", "Accept: text/html"),
            await gateway.get(f"/x?a=1&token={token}", "Accept: text/html"),
            await gateway.get("/x", bearer(agent)),
            await gateway.get("/public/x", bearer(agent)),
            await gateway.ask(handshake(f"/ws/a?token={token}", bearer("garbage"))),
        ]
    told = repr(lines) + await gateway.metrics() + "".join(repr((reply.fields, reply.body)) for reply in replies)

    assert [reply.status for reply in replies] == [401, 401, 401, 401, 401, 200, 401]
    assert b"redirect_url=" in replies[3].body
    for secret in (token, agent, stale):
        assert secret not in told
        assert all(secret.encode() not in seen.head for seen in gateway.upstream.received)


async def test_l03_current_user_shows_the_callers_own_minted_tokens_to_no_cache(gateway: GatewayUnderTest) -> None:
    one, other = await current_user(gateway), await current_user(gateway, sub="user_2another")
    reply = await gateway.get("/users/current", bearer(mint_token()))

    assert reply.get("cache-control") == "no-store"
    assert one["websocketToken"] == reply.json()["websocketToken"]
    assert {one["id"], other["id"]} == {claims_of(user["agentToken"])["sub"] for user in (one, other)}
    assert one["websocketToken"] != other["websocketToken"]


async def test_a_session_without_an_id_gets_nothing_that_could_not_end_with_it(gateway: GatewayUnderTest) -> None:
    user = await current_user(gateway, sid=ABSENT)
    reply = await ask_for_token(gateway, sid=ABSENT)

    assert (user["websocketToken"], user["agentToken"]) == (None, None)
    assert reply.status == 403


async def test_kinds_are_told_apart_in_the_metric(gateway: GatewayUnderTest) -> None:
    agent = (await current_user(gateway))["agentToken"]
    await gateway.get("/agents/x", bearer(agent))

    assert await gateway.metric("gateway_auth_decisions_total", kind=CredentialKind.AGENT_TOKEN, reason="ok") >= 1


async def test_handshake_that_is_none_uses_no_token(gateway: GatewayUnderTest) -> None:
    token = await websocket_token(gateway)
    broken = handshake(f"/ws/a?token={token}").replace(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 12")
    other = request(f"/ws/a?token={token}", "Connection: Upgrade", "Upgrade: h2c")

    assert (await gateway.ask(broken)).status == 426
    assert (await gateway.ask(other)).status == 401
