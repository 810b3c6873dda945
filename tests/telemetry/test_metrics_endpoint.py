"""`/metrics` tells what happened."""

from typing import Any

import pytest

from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.upstream import answering_and_closing
from tests.support.wire import Reply, bearer

pytestmark = pytest.mark.asyncio(loop_scope="module")
FAMILIES = (
    "gateway_breaker_open",
    "gateway_breaker_trips_total",
    "gateway_build_info",
    "gateway_requests_total",
    "gateway_request_duration_seconds_bucket",
    "gateway_auth_decisions_total",
    "gateway_identity_claims_dropped_total",
    "gateway_upstream_request_duration_seconds_bucket",
    "gateway_upstream_errors_total",
    "gateway_upstream_connections",
    "gateway_jwks_fetches_total",
    "gateway_jwks_age_seconds",
    "gateway_cache_requests_total",
    "gateway_caller_renewals_total",
    "gateway_database_failures_total",
    "gateway_clerk_api_requests_total",
    "gateway_provisioned_users_total",
    "gateway_audit_notes_dropped_total",
    "gateway_usage_events_total",
    "gateway_usage_waiting",
    "gateway_provisioning_failures_total",
    "gateway_provisioning_duration_seconds_bucket",
)


async def ask(gateway: GatewayUnderTest, target: str = "/x", **claims: Any) -> Reply:
    return await gateway.get(target, bearer(mint_token(**claims)))


async def test_every_family_is_there_and_described(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond = answering_and_closing(b"garbage\r\n\r\n")
    await ask(gateway)

    lines = (await gateway.metrics()).splitlines()

    samples = {line.partition("{")[0].partition(" ")[0] for line in lines if not line.startswith("#")}
    described = {line.split(" ")[2] for line in lines if line.startswith("# HELP")}
    assert set(FAMILIES) <= samples
    assert {name.removesuffix("_bucket") for name in FAMILIES} <= described


async def test_requests_are_counted_by_route_method_and_status(gateway: GatewayUnderTest) -> None:
    async def count(route: str, code: str) -> float:
        return await gateway.metric("gateway_requests_total", route=route, method="GET", code=code)

    cases = [("/public/x", "/public/**", "200"), ("/x", "/**", "401"), ("/../x", "none", "400")]
    for target, route, code in cases:
        before = await count(route, code)
        await gateway.get(target)

        assert await count(route, code) == before + 1


async def test_decisions_are_counted_with_the_exact_reason(gateway: GatewayUnderTest) -> None:
    async def count(outcome: str, reason: str) -> float:
        return await gateway.metric("gateway_auth_decisions_total", outcome=outcome, reason=reason)

    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("allowed", "ok", {}),
        ("denied", "token-expired", {"now": 0}),
        ("denied", "token-invalid-issuer", {"iss": "https://other.example"}),
        ("denied", "token-invalid-authorized-parties", {"azp": "https://other.example"}),
        ("denied", "session_pending", {"sts": "pending"}),
    ]
    for outcome, reason, claims in cases:
        before = await count(outcome, reason)
        await ask(gateway, **claims)

        assert await count(outcome, reason) == before + 1, reason


async def test_missing_credential_and_anonymous_requests_are_counted(gateway: GatewayUnderTest) -> None:
    async def count(outcome: str, reason: str) -> float:
        return await gateway.metric("gateway_auth_decisions_total", kind="none", outcome=outcome, reason=reason)

    before = [await count("denied", "credential_missing"), await count("anonymous", "ok")]
    await gateway.get("/x")
    await gateway.get("/public/x")

    assert [await count("denied", "credential_missing"), await count("anonymous", "ok")] == [n + 1 for n in before]


async def test_upstream_that_answers_badly_is_counted(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond = answering_and_closing(b"garbage\r\n\r\n")
    before = await gateway.metric("gateway_upstream_errors_total", upstream="app")

    reply = await ask(gateway)

    assert reply.status == 502
    assert await gateway.metric("gateway_upstream_errors_total", upstream="app") == before + 1


async def test_hits_of_the_near_cache_are_counted(gateway: GatewayUnderTest) -> None:
    line = bearer(mint_token(jti="counted"))
    await gateway.get("/x", line)
    before = await gateway.metric("gateway_cache_requests_total", result="hit")
    await gateway.get("/x", line)

    assert await gateway.metric("gateway_cache_requests_total", result="hit") == before + 1


async def test_new_people_are_counted(gateway: GatewayUnderTest) -> None:
    before = await gateway.metric("gateway_provisioned_users_total")
    await ask(gateway, sub="user_2counted")

    assert await gateway.metric("gateway_provisioned_users_total") == before + 1
