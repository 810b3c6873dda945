"""T07 and J-cases of system tokens: known by digest and network, taken where a route names them, told as nobody."""

from hashlib import sha256
from typing import Any

import pytest

from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.minted import ROUTES, SYSTEM_TOKEN, claims_of, current_user
from tests.support.websockets import handshake, switching, then_echo
from tests.support.wire import bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
PREVIOUS, ELSEWHERE, BILLING = (SYSTEM_TOKEN[:-1] + end for end in "012")
SYSTEM_TOKENS = [
    {"name": "billing", "sha256": [sha256(BILLING.encode()).hexdigest()], "networks": ["127.0.0.1/32"]},
    {"name": "elsewhere", "sha256": [sha256(ELSEWHERE.encode()).hexdigest()], "networks": ["192.0.2.0/24"]},
    {
        "name": "reporting",
        "sha256": [sha256(token.encode()).hexdigest() for token in (SYSTEM_TOKEN, PREVIOUS)],
        "networks": ["10.0.0.0/8", "127.0.0.1/32"],
    },
]
SCOPED = {"path": "/scoped/**", "auth": "required", "accept": ["system_token"], "scopes": ["a:b"], "upstream": "app"}
ROLED = {
    "path": "/roles/**",
    "auth": "required",
    "accept": ["session", "system_token"],
    "roles": ["SYSTEM"],
    "upstream": "app",
}
OWNED = {
    "path": "/members/**",
    "auth": "required",
    "accept": ["system_token"],
    "organization_roles": ["admin"],
    "upstream": "app",
}
SETTINGS: dict[str, Any] = {"routes": [SCOPED, ROLED, OWNED, *ROUTES], "system_tokens": SYSTEM_TOKENS}


async def reason_of(gateway: GatewayUnderTest, reason: str) -> float:
    return await gateway.metric("gateway_auth_decisions_total", kind="system_token", reason=reason)


@pytest.mark.parametrize("token", [SYSTEM_TOKEN, PREVIOUS], ids=["current", "previous"])
async def test_a_system_token_passes_as_the_system_and_as_nobody(gateway: GatewayUnderTest, token: str) -> None:
    for _ in range(2):
        reply = await gateway.get("/system/x", bearer(token))

        assert reply.status == 200
    seen = gateway.upstream.last
    told = {name: seen.one(f"x-actor-{name}") for name in ("id", "role", "auth", "scopes", "token-id", "session-id")}
    assert told == {
        "id": "",
        "role": "SYSTEM",
        "auth": "system_token",
        "scopes": "*",
        "token-id": "",
        "session-id": "",
    }
    assert seen.one("x-organization-id") == ""
    assert seen.all("authorization") == []


async def test_two_system_tokens_are_told_apart_in_assertions(gateway: GatewayUnderTest) -> None:
    subjects = []
    for token in (SYSTEM_TOKEN, BILLING, SYSTEM_TOKEN):
        await gateway.get("/system/x", bearer(token))
        subjects.append(claims_of(gateway.upstream.last.one("x-actor-assertion"))["sub"])

    assert subjects == ["system:reporting", "system:billing", "system:reporting"]


@pytest.mark.parametrize("target", ["/x", "/ws/x", "/agents/x", "/admin/x", "/users/current", "/organizations/current"])
async def test_t07_a_system_token_is_taken_where_a_route_names_it_alone(gateway: GatewayUnderTest, target: str) -> None:
    reply = await gateway.get(target, bearer(SYSTEM_TOKEN))

    assert (reply.status, reply.challenge.error) == (401, "invalid_token")
    assert gateway.upstream.received == []


async def test_t07_a_system_token_mints_nothing_and_changes_nothing(gateway: GatewayUnderTest) -> None:
    for method, path in (("POST", "websocket-token"), ("PATCH", "settings")):
        reply = await gateway.ask(request(f"/users/current/{path}", bearer(SYSTEM_TOKEN), method=method))

        assert reply.status == 401


@pytest.mark.parametrize(("target", "status"), [("/scoped/x", 200), ("/roles/x", 200), ("/members/x", 403)])
async def test_rules_of_a_route_hold_for_the_system_too(gateway: GatewayUnderTest, target: str, status: int) -> None:
    assert (await gateway.get(target, bearer(SYSTEM_TOKEN))).status == status
    assert (await gateway.get("/roles/x", bearer(mint_token()))).status == 403


async def test_right_token_from_a_wrong_network_is_told_nothing_else_than_a_wrong_token(
    gateway: GatewayUnderTest,
) -> None:
    before = await reason_of(gateway, "system_token_network"), await reason_of(gateway, "system_token_unknown")

    replies = [await gateway.get("/system/x", bearer(token)) for token in (ELSEWHERE, "ags_nobodys")]

    one, other = ({**reply.json(), "requestId": ""} for reply in replies)
    assert one == other
    assert [reply.challenge.error for reply in replies] == ["invalid_token"] * 2
    after = await reason_of(gateway, "system_token_network"), await reason_of(gateway, "system_token_unknown")
    assert after == (before[0] + 1, before[1] + 1)


async def test_address_a_client_claims_is_not_its_network(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/system/x", bearer(ELSEWHERE), "X-Forwarded-For: 192.0.2.1")

    assert reply.status == 401


async def test_network_is_judged_behind_a_trusted_proxy_and_on_every_request(database_url: str) -> None:
    settings = {**SETTINGS, "trusted_proxies": ["127.0.0.0/8"]}
    async with gateway_under_test(database_url, **settings) as gateway:
        addresses = ("192.0.2.1", "10.1.2.3", "192.0.2.1", "10.1.2.3")
        replies = [await gateway.get("/system/x", bearer(SYSTEM_TOKEN), f"X-Forwarded-For: {a}") for a in addresses]

    assert [reply.status for reply in replies] == [401, 200, 401, 200]


@pytest.mark.parametrize("line", [f"X-API-Key: {SYSTEM_TOKEN}", f"Cookie: __session={SYSTEM_TOKEN}; __client_uat=1"])
async def test_system_token_is_carried_as_a_bearer_alone(gateway: GatewayUnderTest, line: str) -> None:
    assert (await gateway.get("/system/x", line)).status == 401


async def test_j18_system_token_beside_a_users_session_conflicts(gateway: GatewayUnderTest) -> None:
    cookie = f"Cookie: __session={mint_token()}; __client_uat=1"

    reply = await gateway.get("/system/x", bearer(SYSTEM_TOKEN), cookie)

    assert (reply.status, reply.code) == (400, "credential_conflict")


async def test_minted_tokens_are_no_system_tokens(gateway: GatewayUnderTest) -> None:
    user = await current_user(gateway)

    assert (await gateway.get("/system/x", bearer(user["agentToken"]))).status == 401


async def test_websocket_opens_with_a_system_token(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond_early = then_echo(switching())
    async with gateway.wire() as wire:
        await wire.send(handshake("/system/ws", bearer(SYSTEM_TOKEN)))

        assert (await wire.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


async def test_taken_out_of_the_settings_it_is_refused_at_once(database_url: str) -> None:
    async with gateway_under_test(database_url, **SETTINGS) as gateway:
        before = await gateway.get("/system/x", bearer(SYSTEM_TOKEN))
        assert await gateway.reload(system_tokens=[])

        after = await gateway.get("/system/x", bearer(SYSTEM_TOKEN))

    assert (before.status, after.status) == (200, 401)


@pytest.mark.parametrize("change", ["gone", "one digest less", "other networks", "one digest more"])
async def test_w07_websocket_ends_with_the_system_token_that_opened_it(database_url: str, change: str) -> None:
    (token,) = (each for each in SYSTEM_TOKENS if each["name"] == "reporting")
    digests, networks = token["sha256"], token["networks"]
    written: list[dict[str, Any]] = {
        "gone": [],
        "one digest less": [{"name": "reporting", "sha256": digests[1:], "networks": networks}],
        "other networks": [{"name": "reporting", "sha256": digests, "networks": ["10.0.0.0/8"]}],
        "one digest more": [{"name": "reporting", "sha256": digests, "networks": networks}],
    }[change]
    before = [token | {"sha256": digests[:1]}] if change == "one digest more" else SYSTEM_TOKENS
    async with gateway_under_test(database_url, **SETTINGS | {"system_tokens": before}) as gateway:
        gateway.upstream.respond_early = then_echo(switching())
        async with gateway.wire() as wire:
            await wire.send(handshake("/system/ws", bearer(SYSTEM_TOKEN)))
            await wire.reader.readuntil(b"\r\n\r\n")
            assert await gateway.reload(system_tokens=written)
            await wire.send(b"still here")

            ends = change != "one digest more"
            assert await wire.reader.readexactly(4) == (b"\x88\x09\x11\x31" if ends else b"stil")
