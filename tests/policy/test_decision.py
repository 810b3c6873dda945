"""The rules of a route, judged for an Actor."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.credentials.kinds import CredentialKind
from gateway.errors import CredentialMissing, PlanMissing, PolicyDenied, ScopeMissing, SessionPending
from gateway.policy.decision import check_pending, decide
from gateway.verify.principal import Impersonator
from provisioning.records import Role
from tests.policy.build import actor, compiled, principal


def denial_of(who: dict[str, Any], rule: dict[str, Any]) -> str | None:
    """The reason for a denial, None when the Actor may."""
    try:
        decide(actor(**who), compiled(**rule))
    except PolicyDenied as denied:
        return denied.reason
    return None


API_TOKEN = {"kind": CredentialKind.API_TOKEN}
GRANTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"role": Role.ADMIN}, {"roles": ["ADMIN"]}),
    ({"role": Role.USER}, {"roles": ["ADMIN", "USER"]}),
    ({"organization_role": "admin"}, {"organization_roles": ["admin"]}),
    ({"organization_role": "admin"}, {"organization_roles": ["org:admin"]}),
    ({"organization_role": "member"}, {"organization_roles": ["admin", "member"]}),
    ({"permissions": ("org:a:read", "org:b:read")}, {"permissions": ["org:a:read", "b:read"]}),
    ({"features": ("o:reports", "uo:beta")}, {"features": ["reports", "beta"]}),
    ({"features": ("u:reports",)}, {"features": ["user:reports"]}),
    ({"plans": ("o:pro",)}, {"plans": ["pro"]}),
    ({"plans": ("o:pro",)}, {"plans": ["org:pro"]}),
    ({"factor_ages": (5, 9)}, {"reverification": "strict"}),
    ({"factor_ages": (59, -1)}, {"reverification": "moderate"}),
    ({}, {"scopes": ["reports:read"]}),
    (API_TOKEN | {"scopes": ("reports:read", "x")}, {"scopes": ["reports:read"]}),
    (API_TOKEN | {"scopes": ()}, {}),
    ({"impersonator": Impersonator("user_2")}, {"roles": ["USER"]}),
]
DENIALS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"roles": ["ADMIN"]}, "role_not_allowed"),
    ({"role": Role.ADMIN}, {"roles": ["SYSTEM"]}, "role_not_allowed"),
    ({}, {"organization_roles": ["admin"]}, "organization_role_not_allowed"),
    ({"organization_role": "Admin"}, {"organization_roles": ["admin"]}, "organization_role_not_allowed"),
    ({"permissions": ("org:a:read",)}, {"permissions": ["org:a:read", "org:b:read"]}, "permission_missing"),
    ({}, {"permissions": ["org:a:read"]}, "permission_missing"),
    ({"features": ("o:reports",)}, {"features": ["reports", "beta"]}, "feature_missing"),
    ({"features": ("o:reports",)}, {"features": ["user:reports"]}, "feature_missing"),
    ({"plans": ("u:free",)}, {"plans": ["pro"]}, "plan_missing"),
    ({}, {"plans": ["pro"]}, "plan_missing"),
    ({"factor_ages": (5, 10)}, {"reverification": "strict"}, "reverification_needed"),
    ({"factor_ages": (60, -1)}, {"reverification": "moderate"}, "reverification_needed"),
    ({"factor_ages": (-1, 1)}, {"reverification": "strict_mfa"}, "reverification_needed"),
    ({}, {"reverification": "lax"}, "reverification_needed"),
    (API_TOKEN | {"scopes": ()}, {"reverification": "lax"}, "reverification_needed"),
    (API_TOKEN | {"scopes": ()}, {"scopes": ["reports:read"]}, "insufficient_scope"),
    (API_TOKEN | {"scopes": ("a",)}, {"scopes": ["a", "b"]}, "insufficient_scope"),
    ({"role": Role.ADMIN}, {"roles": ["ADMIN"], "organization_roles": ["admin"]}, "organization_role_not_allowed"),
    (API_TOKEN | {"scopes": ()}, {"accept": ["session"]}, "kind_not_accepted"),
    ({"kind": CredentialKind.WEBSOCKET_TOKEN}, {}, "kind_not_accepted"),
]


@pytest.mark.parametrize("who, rule", GRANTS)
def test_actor_who_meets_every_rule_may(who: dict[str, Any], rule: dict[str, Any]) -> None:
    assert denial_of(who, rule) is None


@pytest.mark.parametrize("who, rule, reason", DENIALS)
def test_broken_rule_is_named(who: dict[str, Any], rule: dict[str, Any], reason: str) -> None:
    assert denial_of(who, rule) == reason


@pytest.mark.parametrize("plan", ["pro", "org:pro", "o:pro", "organization:pro"])
def test_plan_of_the_organization_s_subscription_counts_in_its_scope(plan: str) -> None:
    decide(replace(actor(), plan="pro"), compiled(plans=["team", plan]))


@pytest.mark.parametrize(
    "held,plan", [("", "pro"), ("", ""), ("pro", "user:pro"), ("pro", "x:pro"), ("pro", "Pro"), ("o:pro", "pro")]
)
def test_other_plans_are_missing_with_a_code_of_their_own(held: str, plan: str) -> None:
    with pytest.raises(PlanMissing) as denied:
        decide(replace(actor(), plan=held), compiled(plans=[plan]))

    assert denied.value.code == denied.value.reason == "plan_missing"


def test_plans_that_a_token_names_are_clerk_s_to_sell() -> None:
    with pytest.raises(PlanMissing):
        decide(replace(actor(plans=("u:free",)), plan="pro"), compiled(plans=["pro"]))

    decide(replace(actor(plans=("o:team",)), plan=""), compiled(plans=["team"]))


def test_missing_scope_tells_what_the_route_demands() -> None:
    with pytest.raises(ScopeMissing) as denied:
        decide(actor(kind=CredentialKind.API_TOKEN, scopes=("a",)), compiled(scopes=["a", "b"]))

    assert denied.value.scopes == ("a", "b")


def test_j12_pending_session_is_refused() -> None:
    with pytest.raises(SessionPending):
        decide(actor(pending=True), compiled())
    with pytest.raises(SessionPending):
        check_pending(principal(pending=True), compiled(auth="optional"))


def test_j12_pending_session_passes_where_the_route_allows_it() -> None:
    assert denial_of({"pending": True}, {"allow_pending": True}) is None
    assert denial_of({"pending": True}, {"allow_pending": True, "roles": ["ADMIN"]}) == "role_not_allowed"


@pytest.mark.parametrize("auth", ["none", "optional"])
def test_nobody_passes_where_nobody_is_needed(auth: str) -> None:
    decide(None, compiled(auth=auth))


@pytest.mark.parametrize(
    "rule",
    [
        {"auth": "required"},
        {"auth": "optional", "roles": ["USER"]},
        {"auth": "optional", "scopes": ["a"]},
        {"auth": "none", "permissions": ["org:a:read"]},
        {"auth": "optional", "reverification": "lax"},
    ],
)
def test_nobody_is_asked_for_a_credential_where_a_rule_needs_somebody(rule: dict[str, Any]) -> None:
    with pytest.raises(CredentialMissing):
        decide(None, compiled(**rule))
