"""Rules of routes, judged on what tokens prove, over a real socket."""

from typing import Any

import pytest

from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.wire import bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")


def route(path: str, **rule: Any) -> dict[str, Any]:
    return {"path": path, "auth": "required", "upstream": "app", **rule}


SETTINGS = {
    "routes": [
        route("/roles", roles=["ADMIN", "USER"]),
        route("/admins", roles=["ADMIN"]),
        route("/organization-admins", organization_roles=["admin", "org:owner"]),
        route("/permissions", permissions=["org:reports:read", "org:reports:write"]),
        route("/features", features=["reports"]),
        route("/plans", plans=["pro", "team"]),
        route("/fresh", reverification="strict"),
        route("/scopes", scopes=["reports:read"]),
        route("/several", organization_roles=["admin"], plans=["pro"]),
        route("/optional-admins", auth="optional", roles=["ADMIN"]),
        route("/methods", methods=["GET", "POST"]),
        route("/hosts", auth="none", hosts=["one.example"]),
        route("/hosts", auth="none", hosts=["two.example"], strip_prefix="/hosts"),
        route("/first/open", auth="none"),
        route("/first/**"),
    ]
}


def organization(**members: Any) -> dict[str, Any]:
    return {"o": {"id": "org_2policy", "slg": "policy", "rol": "member", **members}}


REPORTS: dict[str, Any] = {"fea": "o:reports", "o": {"id": "org_2p", "rol": "member", "per": "read,write", "fpm": "3"}}
READ_ONLY: dict[str, Any] = {
    "fea": "o:reports",
    "o": {"id": "org_2p", "rol": "member", "per": "read,write", "fpm": "1"},
}


@pytest.mark.parametrize(
    "target,claims",
    [
        ("/roles", {}),
        ("/organization-admins", {}),
        ("/organization-admins", organization(rol="admin")),
        ("/organization-admins", organization(rol="owner")),
        ("/permissions", REPORTS),
        ("/features", {"fea": "u:reports"}),
        ("/plans", {"pla": "u:pro"}),
        ("/plans", {"pla": "o:team", **organization()}),
        ("/fresh", {"fva": [0, 0]}),
        ("/scopes", {}),
        ("/several", {"pla": "o:pro", **organization(rol="admin")}),
        ("/methods", {}),
        ("/first/x", {}),
    ],
)
async def test_actor_who_meets_the_rules_passes(gateway: GatewayUnderTest, target: str, claims: dict[str, Any]) -> None:
    reply = await gateway.get(target, bearer(mint_token(**claims)))

    assert reply.status == 200


@pytest.mark.parametrize(
    "target,claims,reason",
    [
        ("/admins", {}, "role_not_allowed"),
        ("/optional-admins", {}, "role_not_allowed"),
        ("/organization-admins", organization(), "organization_role_not_allowed"),
        ("/organization-admins", organization(rol="Admin"), "organization_role_not_allowed"),
        ("/permissions", READ_ONLY, "permission_missing"),
        ("/permissions", {}, "permission_missing"),
        ("/features", {"fea": "u:reports2"}, "feature_missing"),
        ("/features", {}, "feature_missing"),
        ("/plans", {"pla": "u:free"}, "plan_missing"),
        ("/fresh", {"fva": [20, 20]}, "reverification_needed"),
        ("/fresh", {}, "reverification_needed"),
        ("/several", {"pla": "o:pro", **organization()}, "organization_role_not_allowed"),
        ("/several", {"pla": "u:free", **organization(rol="admin")}, "plan_missing"),
    ],
)
async def test_actor_who_breaks_a_rule_is_denied_and_counted(
    gateway: GatewayUnderTest, target: str, claims: dict[str, Any], reason: str
) -> None:
    before = await gateway.metric("gateway_auth_decisions_total", outcome="denied", reason=reason)

    reply = await gateway.get(target, bearer(mint_token(**claims)))

    assert reply.status == 403
    assert reply.code == ("plan_missing" if reason == "plan_missing" else "forbidden")
    assert reply.all("www-authenticate") == []
    assert gateway.upstream.received == []
    assert await gateway.metric("gateway_auth_decisions_total", outcome="denied", reason=reason) == before + 1


async def test_nobody_is_asked_to_sign_in_where_an_optional_route_has_rules(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/optional-admins")

    assert reply.status == 401
    assert reply.code == "credential_missing"


async def test_policy_is_judged_after_every_hit_of_the_cache(gateway: GatewayUnderTest) -> None:
    line = bearer(mint_token())

    statuses = [(await gateway.get(target, line)).status for target in ("/roles", "/admins", "/roles", "/admins")]

    assert statuses == [200, 403, 200, 403]


@pytest.mark.parametrize("method,status", [("GET", 200), ("HEAD", 200), ("POST", 200), ("PUT", 404), ("OPTIONS", 404)])
async def test_route_takes_its_methods_alone(gateway: GatewayUnderTest, method: str, status: int) -> None:
    reply = await gateway.ask(request("/methods", bearer(mint_token()), method=method))

    assert reply.status == status


@pytest.mark.parametrize(
    "host,forwarded", [("one.example", b"/hosts"), ("TWO.example:81", b"/"), ("three.example", None)]
)
async def test_first_route_that_takes_the_host_decides(
    gateway: GatewayUnderTest, host: str, forwarded: bytes | None
) -> None:
    reply = await gateway.ask(request("/hosts", host=host))

    assert reply.status == (404 if forwarded is None else 200)
    assert [seen.target for seen in gateway.upstream.received] == ([] if forwarded is None else [forwarded])


@pytest.mark.parametrize(
    "target,status", [("/first/open", 200), ("/first/open/", 401), ("/first", 401), ("/second", 404)]
)
async def test_first_match_wins_and_nothing_else_is_open(gateway: GatewayUnderTest, target: str, status: int) -> None:
    reply = await gateway.get(target)

    assert reply.status == status


async def test_permissions_that_are_judged_are_those_the_upstream_is_told(gateway: GatewayUnderTest) -> None:
    await gateway.get("/permissions", bearer(mint_token(**REPORTS)))

    seen = gateway.upstream.last
    assert seen.one("x-organization-permissions") == "org:reports:read org:reports:write"
    assert seen.one("x-organization-role") == "member"
    assert seen.one("x-actor-scopes") == "*"
    assert seen.one("x-actor-auth") == "session"
    assert seen.one("x-actor-session-id") == "sess_2testSession"
