"""The subscription of an organization as callers, upstreams and rules of routes are told of it."""

import re
from typing import Any

import pytest

from gateway.credentials.jwt_text import parse_jwt
from tests.support.api_tokens import execute, made_token, value
from tests.support.gateway import ROUTES, GatewayUnderTest, gateway_under_test, mint_token
from tests.support.postgres import PostgresServer
from tests.support.wire import bearer

pytestmark = pytest.mark.asyncio(loop_scope="module")
RULED = [{"path": "/pro/**", "auth": "required", "plans": ["pro", "team"], "upstream": "app"}, *ROUTES]
SETTINGS: dict[str, Any] = {"routes": RULED, "cache": {"near_ttl": "1ms", "degraded_ttl": "1ms"}}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_OF = "organization_id = (SELECT id FROM organizations WHERE clerk_id = $1)"


def at(name: str, role: str = "member") -> dict[str, Any]:
    """Claims of a session in a Clerk organization of a test's own."""
    return {"o": {"id": f"org_2{name}", "slg": name, "rol": role}}


async def told(gateway: GatewayUnderTest, token: str) -> dict[str, Any]:
    """The subscription in `/users/current`."""
    subscription: dict[str, Any] = (await gateway.get("/users/current", bearer(token))).json()["subscription"]
    return subscription


async def headers(gateway: GatewayUnderTest, token: str) -> tuple[str, str, object]:
    """What the upstream is told: status, plan, and the plan once more in the assertion."""
    await gateway.get("/x", bearer(token))
    seen = gateway.upstream.last
    claims = parse_jwt(seen.one("x-actor-assertion")).payload
    return seen.one("x-subscription-status"), seen.one("x-subscription-plan"), claims["plan"]


async def change(gateway: GatewayUnderTest, name: str, assignments: str) -> None:
    """Change the facts of an organization's subscription behind the gateway's back."""
    await execute(gateway, f"UPDATE subscriptions SET {assignments} WHERE {_OF}", f"org_2{name}")


async def test_caller_is_told_of_the_trial(gateway: GatewayUnderTest) -> None:
    subscription = await told(gateway, mint_token(**at("told")))

    ends_at = subscription.pop("trialEndsAt")
    assert MOMENT.fullmatch(ends_at)
    assert subscription == {
        "status": "trialing",
        "plan": "pro",
        "planName": "Pro",
        "isTrial": True,
        "currentPeriodEndsAt": ends_at,
        "daysRemaining": 14,
        "cancelAtPeriodEnd": False,
        "canManage": False,
    }


async def test_personal_organization_has_a_trial_that_its_owner_manages(gateway: GatewayUnderTest) -> None:
    subscription = await told(gateway, mint_token(sub="user_2personal"))

    assert (subscription["status"], subscription["canManage"]) == ("trialing", True)


@pytest.mark.parametrize("role,manages", [("admin", True), ("member", False), ("billing_admin", False)])
async def test_admins_of_the_organization_may_manage_it(gateway: GatewayUnderTest, role: str, manages: bool) -> None:
    assert (await told(gateway, mint_token(**at("managed", role))))["canManage"] is manages


async def test_upstream_is_told_of_status_and_plan_by_header_and_assertion(gateway: GatewayUnderTest) -> None:
    assert await headers(gateway, mint_token(**at("upstream"))) == ("trialing", "pro", "pro")


async def test_nobody_has_a_subscription(gateway: GatewayUnderTest) -> None:
    await gateway.get("/optional/x")

    seen = gateway.upstream.last
    assert (seen.one("x-subscription-status"), seen.one("x-subscription-plan")) == ("", "")


async def test_second_person_finds_the_trial_of_the_first(gateway: GatewayUnderTest) -> None:
    first = await told(gateway, mint_token(sub="user_2first", **at("shared")))
    second = await told(gateway, mint_token(sub="user_2second", **at("shared")))

    assert first == second
    assert await value(gateway, f"SELECT count(*) FROM subscriptions WHERE {_OF}", "org_2shared") == 1


@pytest.mark.parametrize(
    "name,facts,status,plan,days",
    [
        ("expired", "trial_ends_at = now(), current_period_end = now()", "expired", None, 0),
        ("active", "status = 'active', current_period_end = now() + interval '30 days'", "active", "pro", 30),
        ("owing", "status = 'past_due', current_period_end = now() + interval '1 day'", "past_due", "pro", 1),
        ("canceled", "status = 'canceled'", "canceled", None, 0),
        ("unpaid", "status = 'unpaid'", "expired", None, 0),
        ("begun", "status = 'incomplete'", "none", None, None),
    ],
)
async def test_every_status_is_told_and_only_a_plan_in_force_opens_routes(
    gateway: GatewayUnderTest, name: str, facts: str, status: str, plan: str | None, days: int | None
) -> None:
    token = mint_token(**at(name))
    await told(gateway, token)
    await change(gateway, name, facts)

    shown = await told(gateway, token)
    ruled = await gateway.get("/pro/x", bearer(token))

    assert (shown["status"], shown["daysRemaining"], shown["plan"]) == (status, days, "pro")
    assert shown["isTrial"] is False
    assert await headers(gateway, token) == (status, plan or "", plan)
    assert ruled.status == (200 if plan else 403)
    assert plan or (ruled.code, ruled.all("www-authenticate")) == ("plan_missing", [])


async def test_subscription_that_shall_end_with_its_period_is_told_as_such_until_then(
    gateway: GatewayUnderTest,
) -> None:
    token = mint_token(**at("ending"))
    await told(gateway, token)
    await change(gateway, "ending", "status = 'active', cancel_at_period_end = true")
    before = await told(gateway, token)
    await change(gateway, "ending", "current_period_end = now()")
    after = await told(gateway, token)

    assert (before["status"], before["cancelAtPeriodEnd"]) == ("active", True)
    assert (after["status"], after["cancelAtPeriodEnd"]) == ("canceled", False)


async def test_api_token_is_judged_by_the_plan_of_its_organization(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2robots", **at("robots"))
    token = (await made_token(gateway, session))["token"]
    before = (await gateway.get("/pro/x", bearer(token))).status
    assert (await told(gateway, token))["status"] == "trialing"

    await change(gateway, "robots", "status = 'canceled'")

    assert (before, (await gateway.get("/pro/x", bearer(token))).status) == (200, 403)


async def test_clerk_s_plans_count_where_the_token_names_some(gateway: GatewayUnderTest) -> None:
    free = await gateway.get("/pro/x", bearer(mint_token(pla="o:free_org", **at("clerks"))))
    team = await gateway.get("/pro/x", bearer(mint_token(pla="o:team", **at("clerks"))))

    assert (free.status, team.status) == (403, 200)


async def test_clients_cannot_choose_a_subscription(gateway: GatewayUnderTest) -> None:
    token = mint_token(**at("chosen"))
    await told(gateway, token)
    await change(gateway, "chosen", "status = 'canceled'")

    await gateway.get("/x", bearer(token), "X-Subscription-Status: active", "x_subscription_plan: pro")

    assert (gateway.upstream.last.one("x-subscription-status"), gateway.upstream.last.one("x-subscription-plan")) == (
        "canceled",
        "",
    )


async def test_trials_can_be_switched_off(database_url: str) -> None:
    async with gateway_under_test(database_url, provisioning={"trial_days": 0}, routes=RULED) as gateway:
        token = mint_token()
        shown, ruled = await told(gateway, token), await gateway.get("/pro/x", bearer(token))
        seen = await headers(gateway, token)

    assert shown == {
        "status": "none",
        "plan": None,
        "planName": None,
        "isTrial": False,
        "trialEndsAt": None,
        "currentPeriodEndsAt": None,
        "daysRemaining": None,
        "cancelAtPeriodEnd": False,
        "canManage": True,
    }
    assert (ruled.status, ruled.code) == (403, "plan_missing")
    assert seen == ("none", "", None)


async def test_length_and_plan_of_trials_are_settings(database_url: str) -> None:
    async with gateway_under_test(database_url, provisioning={"trial_days": 3, "trial_plan": "team-plus"}) as gateway:
        shown = await told(gateway, mint_token())

    assert (shown["daysRemaining"], shown["plan"], shown["planName"]) == (3, "team-plus", "Team Plus")


async def test_subscription_is_told_from_memory_while_postgresql_is_away(postgres_server: PostgresServer) -> None:
    async with gateway_under_test(postgres_server.url, routes=RULED) as gateway:
        token = mint_token()
        before = await told(gateway, token)
        await postgres_server.stop()
        after, ruled = await told(gateway, token), await gateway.get("/pro/x", bearer(token))

    assert after == before
    assert ruled.status == 200
