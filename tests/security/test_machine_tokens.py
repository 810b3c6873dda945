"""Clerk's machine tokens over a real socket: where they are taken, as whom they act, and what they never open."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
import pytest_asyncio
from aiohttp import web

from tests.support.api_tokens import execute
from tests.support.clerk_backend import SECRET_KEY, ClerkBackend
from tests.support.clerk_machines import (
    GATEWAY_MACHINE,
    MACHINE,
    ORGANIZATION,
    USER,
    MachineDesk,
    errors,
    mint_m2m,
    mint_oauth,
)
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.postgres import PostgresServer
from tests.support.upstream import answer_ok
from tests.support.websockets import frame, handshake, switching, then_echo
from tests.support.wire import Reply, bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")


def _route(path: str, *accept: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "auth": "required", "accept": list(accept), "upstream": "app", **more}


KINDS = ("clerk_api_key", "clerk_oauth", "clerk_m2m")
SETTINGS: dict[str, Any] = {
    "cache": {"near_ttl": "10m"},
    "tokens": {"scopes": ["read", "write", GATEWAY_MACHINE]},
    "routes": [
        {"path": "/public/**", "auth": "none", "upstream": "app"},
        {"path": "/optional/**", "auth": "optional", "accept": ["session", *KINDS], "upstream": "app"},
        _route("/keys/**", "clerk_api_key", "session"),
        _route("/oauth/**", "clerk_oauth"),
        _route("/machines/**", "clerk_m2m"),
        _route("/reading/**", *KINDS, scopes=["read"]),
        _route("/writing/**", *KINDS, scopes=["admin"]),
        _route("/admins/**", *KINDS, "session", roles=["ADMIN"]),
        _route("/systems/**", *KINDS, roles=["SYSTEM"]),
        _route("/members/**", *KINDS, organization_roles=["admin"]),
        _route("/forwarded/**", *KINDS, forward_credentials=True),
        _route("/any/**", "session", "api_token", *KINDS),
        _route("/**", "session", "api_token"),
    ],
}


@pytest.fixture(scope="module", params=[True, False], ids=["fast_lane", "aiohttp_lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    """Both lanes must give the same verdicts."""
    return bool(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_backend() -> AsyncIterator[ClerkBackend]:
    async with ClerkBackend().running() as backend:
        yield backend


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_gateway(
    module_backend: ClerkBackend, module_database_url: str, fast_lane: bool
) -> AsyncIterator[GatewayUnderTest]:
    clerk = {"api_url": module_backend.url, "secret_key": SECRET_KEY}
    async with gateway_under_test(module_database_url, fast_lane=fast_lane, clerk=clerk, **SETTINGS) as gateway:
        yield gateway


@pytest.fixture
def gateway(module_gateway: GatewayUnderTest) -> GatewayUnderTest:
    """With an upstream that has seen nothing."""
    module_gateway.upstream.received.clear()
    module_gateway.upstream.respond, module_gateway.upstream.respond_early = answer_ok, None
    return module_gateway


@pytest.fixture
def desk(module_backend: ClerkBackend) -> MachineDesk:
    """Clerk's endpoints, which were asked nothing and answer well."""
    machines = module_backend.machines
    machines.asked.clear()
    machines.reply = machines.held = None
    machines.secret_key = SECRET_KEY
    return machines


def told(gateway: GatewayUnderTest) -> dict[str, str]:
    """What the upstream was told of the last caller."""
    names = ("id", "role", "auth", "scopes", "token-id", "session-id", "impersonator-id")
    seen = gateway.upstream.last
    return {name: seen.one(f"x-actor-{name}") for name in names if seen.one(f"x-actor-{name}")}


def asserted(gateway: GatewayUnderTest) -> dict[str, Any]:
    """What the assertion of the last request says."""
    line = gateway.upstream.last.one("x-actor-assertion")
    claims: dict[str, Any] = jwt.decode(line, options={"verify_signature": False})
    return claims


async def test_api_key_acts_as_its_user_with_its_scopes(gateway: GatewayUnderTest, desk: MachineDesk) -> None:
    token = desk.api_key()
    for _ in range(3):
        assert (await gateway.get("/keys/x", bearer(token))).status == 200

    who = told(gateway)
    assert who.pop("id").startswith("usr_")
    assert who == {
        "role": "USER",
        "auth": "clerk_api_key",
        "scopes": "read write",
        "token-id": desk.documents[token]["id"],
    }
    assert gateway.upstream.last.one("x-organization-id").startswith("org_")
    assert gateway.upstream.last.one("x-organization-role") == "admin"  # of the user's own
    assert gateway.upstream.last.all("authorization") == []
    assert len(desk.asked) == 1


@pytest.mark.parametrize("make", [lambda desk: desk.oauth(), lambda _: mint_oauth()], ids=["opaque", "JWT"])
async def test_oauth_token_acts_as_its_user(
    gateway: GatewayUnderTest, desk: MachineDesk, make: Callable[[MachineDesk], str]
) -> None:
    assert (await gateway.get("/oauth/x", bearer(make(desk)))).status == 200

    who = told(gateway)
    assert (who["role"], who["auth"]) == ("USER", "clerk_oauth")
    assert who["token-id"].startswith("oat_")


async def test_a_person_is_the_same_by_session_and_by_key(gateway: GatewayUnderTest, desk: MachineDesk) -> None:
    await gateway.get("/any/x", bearer(mint_token(sub=USER)))
    by_session = told(gateway)["id"]

    await gateway.get("/any/x", bearer(desk.api_key()))
    by_key = told(gateway)["id"]
    await gateway.get("/any/x", bearer(mint_oauth()))

    assert by_session == by_key == told(gateway)["id"]


@pytest.mark.parametrize("make", [lambda desk: desk.m2m(), lambda _: mint_m2m()], ids=["opaque", "JWT"])
async def test_machine_acts_as_nobody(
    gateway: GatewayUnderTest, desk: MachineDesk, make: Callable[[MachineDesk], str]
) -> None:
    for _ in range(2):
        assert (await gateway.get("/machines/x", bearer(make(desk)))).status == 200

    who = told(gateway)
    assert who.pop("token-id").startswith("mt_")
    assert who == {"role": "SYSTEM", "auth": "clerk_m2m", "scopes": GATEWAY_MACHINE}
    assert gateway.upstream.last.one("x-organization-id") == ""
    assert asserted(gateway)["sub"] == MACHINE


async def test_machines_without_token_ids_are_told_apart_in_assertions(gateway: GatewayUnderTest) -> None:
    subjects = []
    for machine in ("mch_2one", "mch_2other"):
        await gateway.get("/machines/x", bearer(mint_m2m(sub=machine, jti=None)))
        subjects.append(asserted(gateway)["sub"])

    assert subjects == ["mch_2one", "mch_2other"]


async def test_api_key_of_an_organization_acts_in_it_and_as_no_user(
    gateway: GatewayUnderTest, desk: MachineDesk
) -> None:
    token = desk.api_key(ORGANIZATION)
    for _ in range(2):
        assert (await gateway.get("/keys/x", bearer(token))).status == 200
    seen, who = gateway.upstream.last, told(gateway)
    await gateway.get("/keys/x", bearer(mint_token(o={"id": ORGANIZATION, "rol": "member", "slg": "acme"})))

    assert who == {
        "role": "USER",
        "auth": "clerk_api_key",
        "scopes": "read write",
        "token-id": desk.documents[token]["id"],
    }
    assert seen.one("x-organization-id") == gateway.upstream.last.one("x-organization-id") != ""
    assert (seen.one("x-organization-role"), seen.one("x-organization-permissions")) == ("", "")


@pytest.mark.parametrize("target", ["/x", "/users/current", "/organizations/current", "/users/current/api-tokens"])
async def test_no_machine_token_is_taken_where_none_is_named_and_nobody_is_asked(
    gateway: GatewayUnderTest, desk: MachineDesk, target: str
) -> None:
    for token in (desk.api_key(), desk.oauth(), desk.m2m(), mint_oauth(), mint_m2m()):
        reply = await gateway.get(target, bearer(token))

        assert (reply.status, reply.challenge.error) == (401, "invalid_token")
    assert desk.asked == []
    assert gateway.upstream.received == []


async def test_own_endpoints_change_nothing_for_them(gateway: GatewayUnderTest, desk: MachineDesk) -> None:
    for method, path in (("POST", "websocket-token"), ("PATCH", "settings"), ("POST", "api-tokens")):
        reply = await gateway.ask(request(f"/users/current/{path}", bearer(desk.api_key()), method=method))

        assert reply.status == 401
    assert desk.asked == []


@pytest.mark.parametrize(
    ("target", "make"),
    [
        ("/oauth/x", lambda desk: desk.api_key()),
        ("/machines/x", lambda desk: desk.oauth()),
        ("/keys/x", lambda desk: desk.m2m()),
        ("/keys/x", lambda _: mint_oauth()),
        ("/oauth/x", lambda _: mint_m2m()),
        ("/oauth/x", lambda _: mint_token()),
        ("/machines/x", lambda _: mint_token()),
    ],
)
async def test_wrong_class_is_refused_before_any_question(
    gateway: GatewayUnderTest, desk: MachineDesk, target: str, make: Callable[[MachineDesk], str]
) -> None:
    reply = await gateway.get(target, bearer(make(desk)))

    assert (reply.status, reply.challenge.error) == (401, "invalid_token")
    assert desk.asked == []


@pytest.mark.parametrize(
    "changes",
    [
        {"revoked": True},
        {"expired": True},
        {"active": False},
        {"expiration": 1_700_000_000_000},
        {"subject": "mch_2x"},
        {"subject": "scim_2x"},
    ],
)
async def test_bad_key_is_401(gateway: GatewayUnderTest, desk: MachineDesk, changes: dict[str, Any]) -> None:
    reply = await gateway.get("/keys/x", bearer(desk.api_key(**changes)))

    assert (reply.status, reply.code, reply.challenge.error) == (401, "invalid_token", "invalid_token")
    assert gateway.upstream.received == []


async def test_unknown_key_is_401_on_optional_routes_too(gateway: GatewayUnderTest, desk: MachineDesk) -> None:
    for target in ("/keys/x", "/optional/x"):
        assert (await gateway.get(target, bearer("ak_of_nobody_whatever"))).status == 401
    assert len(desk.asked) == 1
    assert gateway.upstream.received == []


async def test_missing_and_malformed_stay_what_they_are(gateway: GatewayUnderTest, desk: MachineDesk) -> None:
    missing = await gateway.get("/machines/x")
    foreign = await gateway.get("/machines/x", "Authorization: Basic dTpw")
    malformed = await gateway.get("/machines/x", "Authorization: Bearer mt_one two_three_four")
    doubled = await gateway.get("/machines/x", bearer(desk.m2m()), bearer(desk.m2m()))

    assert [(reply.status, reply.code) for reply in (missing, foreign, malformed, doubled)] == [
        (401, "credential_missing"),
        (401, "credential_missing"),
        (400, "invalid_request"),
        (400, "invalid_request"),
    ]
    assert desk.asked == []


@pytest.mark.parametrize("line", ["X-API-Key: {}", "Cookie: __session={}; __client_uat=1"])
async def test_they_are_carried_as_a_bearer_alone(gateway: GatewayUnderTest, desk: MachineDesk, line: str) -> None:
    for token in (desk.api_key(), mint_oauth()):
        assert (await gateway.get("/any/x", line.format(token))).status == 401
    assert desk.asked == []


async def _limited(_: web.Request) -> web.StreamResponse:
    return errors(429, "too_many_requests", {"Retry-After": "1"})


async def _failing(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text="{}")


@pytest.mark.parametrize("fail", [_failing, _limited], ids=["500", "429"])
async def test_outage_of_clerks_is_503_and_never_401(gateway: GatewayUnderTest, desk: MachineDesk, fail: Any) -> None:
    desk.reply = fail
    token = desk.oauth()
    for target in ("/oauth/x", "/optional/x"):
        reply = await gateway.get(target, bearer(token))

        assert (reply.status, reply.code) == (503, "verifier_unavailable")
        assert int(reply.get("retry-after") or 0) >= 1
        assert reply.get("www-authenticate") is None
    desk.reply = None
    async with asyncio.timeout(10):
        while (await gateway.get("/oauth/x", bearer(token))).status == 503:  # noqa: ASYNC110 - until Retry-After is over
            await asyncio.sleep(0.1)
    assert told(gateway)["auth"] == "clerk_oauth"


async def test_scopes_of_the_token_are_held_against_the_routes(gateway: GatewayUnderTest, desk: MachineDesk) -> None:
    wide = desk.api_key(scopes=["read", "admin", "*"])
    reading, admin = await gateway.get("/reading/x", bearer(wide)), await gateway.get("/writing/x", bearer(wide))
    narrow = await gateway.get("/reading/x", bearer(desk.api_key(scopes=[])))

    assert reading.status == 200
    assert told(gateway)["scopes"] == "read"
    assert (admin.status, admin.challenge.error) == (403, "insufficient_scope")
    assert (narrow.status, narrow.code) == (403, "insufficient_scope")


async def test_no_machine_token_is_an_administrators(
    database_url: str, module_backend: ClerkBackend, desk: MachineDesk, fast_lane: bool
) -> None:
    clerk = {"api_url": module_backend.url, "secret_key": SECRET_KEY}
    settings = SETTINGS | {"cache": {"near_ttl": "1ms"}, "clerk": clerk, "fast_lane": fast_lane}
    tokens = [desk.api_key(), desk.oauth(), desk.m2m(), desk.api_key(ORGANIZATION), mint_oauth(), mint_m2m()]
    async with gateway_under_test(database_url, **settings) as gateway:
        session = bearer(mint_token(sub=USER))
        await gateway.get("/any/x", session)
        await execute(gateway, "UPDATE users SET role = 'ADMIN'")
        await asyncio.sleep(0.01)
        by_session = await gateway.get("/admins/x", session)
        replies = [(await gateway.get("/admins/x", bearer(token))).status for token in tokens]
        told_roles = [(await gateway.get("/any/x", bearer(token))).status and told(gateway)["role"] for token in tokens]

    assert by_session.status == 200
    assert replies == [403] * len(tokens)
    assert told_roles == ["USER", "USER", "SYSTEM", "USER", "USER", "SYSTEM"]


async def test_only_machines_are_systems_and_only_users_are_members(
    gateway: GatewayUnderTest, desk: MachineDesk
) -> None:
    tokens = [desk.api_key(), desk.oauth(), desk.m2m(), desk.api_key(ORGANIZATION)]

    systems = [(await gateway.get("/systems/x", bearer(token))).status for token in tokens]
    members = [(await gateway.get("/members/x", bearer(token))).status for token in tokens]

    assert systems == [403, 403, 200, 403]
    assert members == [200, 200, 403, 403]


@pytest.mark.parametrize("times", [1, 2])
async def test_j18_key_and_session_of_different_users_conflict(
    gateway: GatewayUnderTest, desk: MachineDesk, times: int
) -> None:
    cookie = f"Cookie: __session={mint_token(sub='user_2somebodyElse')}; __client_uat=1"
    for token in (desk.api_key(), desk.api_key(ORGANIZATION), desk.m2m(), mint_oauth(), mint_m2m()):
        for _ in range(times):
            reply = await gateway.get("/any/x", bearer(token), cookie)

            assert (reply.status, reply.code) == (400, "credential_conflict")
    assert gateway.upstream.received == []


async def test_j18_key_beside_a_session_of_the_same_user_counts_first(
    gateway: GatewayUnderTest, desk: MachineDesk
) -> None:
    cookie = f"Cookie: __session={mint_token(sub=USER)}; __client_uat=1"
    for token in (desk.api_key(), mint_oauth()):
        reply: Reply = await gateway.get("/any/x", bearer(token), cookie)

        assert reply.status == 200
        assert told(gateway)["auth"] in ("clerk_api_key", "clerk_oauth")


async def test_j18_bad_key_is_not_healed_by_a_good_cookie(gateway: GatewayUnderTest, desk: MachineDesk) -> None:
    cookie = f"Cookie: __session={mint_token(sub=USER)}; __client_uat=1"

    assert (await gateway.get("/any/x", bearer(desk.api_key(revoked=True)), cookie)).status == 401


@pytest.mark.parametrize("line", ["Authorization: Bearer {}", "Authorization: bearer {}", "X-API-Key: {}"])
async def test_none_of_them_goes_up_unless_the_route_forwards_it(
    gateway: GatewayUnderTest, desk: MachineDesk, line: str
) -> None:
    for token in (desk.api_key(), desk.oauth(), desk.m2m(), mint_m2m()):
        await gateway.get("/public/x", line.format(token))

        assert token.encode() not in gateway.upstream.last.head
    token = desk.api_key()
    await gateway.get("/forwarded/x", bearer(token))
    assert gateway.upstream.last.one("authorization") == f"Bearer {token}"


async def test_deleted_user_does_not_come_back_by_a_key(gateway: GatewayUnderTest, desk: MachineDesk) -> None:
    key = bearer(desk.api_key("user_2toBeDeleted"))
    before = await gateway.get("/keys/x", key)
    database = gateway.reloader.current.sources.database
    async with database.connection() as connection:
        await connection.execute("UPDATE users SET deleted_at = now() WHERE clerk_id = 'user_2toBeDeleted'")
    assert await gateway.reload(cache={"near_ttl": "9m"})  # else what is believed must first grow old

    after = await gateway.get("/keys/x", key)

    assert (before.status, after.status, after.code) == (200, 401, "user_deleted")


async def test_revoked_at_clerk_it_passes_no_longer_than_it_is_believed(
    database_url: str, module_backend: ClerkBackend, desk: MachineDesk, fast_lane: bool
) -> None:
    clerk = {"api_url": module_backend.url, "secret_key": SECRET_KEY}
    settings = SETTINGS | {"cache": {"near_ttl": "1ms"}, "clerk": clerk, "fast_lane": fast_lane}
    async with gateway_under_test(database_url, **settings) as gateway:
        keys = [desk.api_key(), desk.oauth(), desk.m2m(), desk.api_key(ORGANIZATION)]
        before = [(await gateway.get("/any/x", bearer(key))).status for key in keys]
        for key in keys:
            desk.documents[key]["revoked"] = True
        await asyncio.sleep(0.01)
        after = [(await gateway.get("/any/x", bearer(key))).status for key in keys]

    assert (before, after) == ([200] * 4, [401] * 4)


async def test_route_that_a_reload_opens_to_them_takes_them(
    database_url: str, module_backend: ClerkBackend, desk: MachineDesk, fast_lane: bool
) -> None:
    clerk = {"api_url": module_backend.url, "secret_key": SECRET_KEY}
    async with gateway_under_test(database_url, clerk=clerk, fast_lane=fast_lane) as gateway:
        key = bearer(desk.api_key())
        before = await gateway.get("/x", key)
        assert await gateway.reload(routes=[_route("/**", "clerk_api_key")])
        after = await gateway.get("/x", key)
        assert await gateway.reload(routes=[_route("/**", "session")])
        closed = await gateway.get("/x", key)

    assert [reply.status for reply in (before, after, closed)] == [401, 200, 401]


async def test_known_organizations_key_passes_while_postgresql_is_away(
    postgres_server: PostgresServer, module_backend: ClerkBackend, desk: MachineDesk
) -> None:
    clerk = {"api_url": module_backend.url, "secret_key": SECRET_KEY}
    settings = SETTINGS | {"cache": {"near_ttl": "1ms", "degraded_ttl": "1ms"}, "clerk": clerk}
    async with gateway_under_test(postgres_server.url, **settings) as gateway:
        keys = [desk.api_key(ORGANIZATION), desk.api_key(), desk.m2m()]
        before = [(await gateway.get("/any/x", bearer(key))).status for key in keys]
        await postgres_server.stop()
        await asyncio.sleep(0.01)
        known = [(await gateway.get("/any/x", bearer(key))).status for key in keys]
        unknown = await gateway.get("/any/x", bearer(desk.api_key("org_2neverSeen")))

    assert (before, known) == ([200] * 3, [200] * 3)
    assert (unknown.status, unknown.code) == (503, "store_unavailable")


async def test_websocket_opens_with_a_token_and_ends_with_it(gateway: GatewayUnderTest, desk: MachineDesk) -> None:
    gateway.upstream.respond_early = then_echo(switching())
    token = desk.m2m(expiration=int((time.time() + 1.5) * 1000))
    async with gateway.wire() as wire:
        await wire.send(handshake("/machines/ws", bearer(token)))
        assert (await wire.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")

        closing = await wire.rest()

    assert frame(8, (4401).to_bytes(2, "big"))[2:] in closing
