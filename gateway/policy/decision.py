"""Whether the Actor may: the rules of one route, judged on every request, never remembered."""

from gateway.actors.actor import Actor
from gateway.errors import CredentialMissing, PlanMissing, PolicyDenied, ScopeMissing, SessionPending
from gateway.policy.routes import Auth, CompiledRoute
from gateway.verify.authorization import has_feature, has_plan, is_plan, is_reverified
from gateway.verify.principal import Principal


def decide(actor: Actor | None, route: CompiledRoute) -> None:
    """Return when the request may pass.

    Of `roles`, `organization_roles` and `plans` one will do; of `permissions`, `features` and `scopes` all are
    needed; and every kind of rule that a route has must hold. Someone who acts as a user may do what the user may.

    Args:
        actor: None for a request without a credential of ours.
        route: The row the request falls under.

    Raises:
        CredentialMissing: Nobody, where the route needs somebody.
        SessionPending: An unfinished session, unless the route says `allow_pending`.
        ScopeMissing: The credential is narrower than the route demands.
        PlanMissing: Neither the token nor the organization's subscription gives one of the plans.
        PolicyDenied: Another rule does not hold; the reason names it.
    """
    if actor is None:
        # Rules cannot hold for nobody: on an `optional` route with rules, signing in is what is missing.
        if route.auth is Auth.REQUIRED or not route.demands_nothing:
            raise CredentialMissing
        return
    check_pending(actor.principal, route)
    if actor.principal.kind not in route.accepts:
        raise PolicyDenied("kind_not_accepted")
    if route.demands_nothing:
        return
    reason = _broken_rule(actor, route)
    if reason is not None:
        raise PolicyDenied(reason)
    if route.plans and not any(_has_plan(actor, plan) for plan in route.plans):
        raise PlanMissing
    scopes = actor.principal.scopes
    if scopes is not None and not set(route.scopes) <= set(scopes):
        raise ScopeMissing(route.scopes)


def check_pending(principal: Principal, route: CompiledRoute) -> None:
    """Refuse a session with an unfinished task; may be asked before the Actor is looked up.

    Raises:
        SessionPending: The session is pending and the route does not allow that.
    """
    if principal.pending and not route.allow_pending:
        raise SessionPending


def _broken_rule(actor: Actor, route: CompiledRoute) -> str | None:
    """Name the first rule that does not hold, plans and scopes aside."""
    principal = actor.principal
    if route.roles and actor.role not in route.roles:
        return "role_not_allowed"
    if route.organization_roles and actor.organization_role not in route.organization_roles:
        return "organization_role_not_allowed"
    # What is judged is what the upstream is told: the Actor's permissions, not the token's.
    if not route.permissions <= set(actor.organization_permissions):
        return "permission_missing"
    if not all(has_feature(principal, feature) for feature in route.features):
        return "feature_missing"
    if route.reverification is not None and not is_reverified(route.reverification, principal.factor_ages):
        return "reverification_needed"
    return None


def _has_plan(actor: Actor, plan: str) -> bool:
    """Ask the token where Clerk sells the plans and it names some; else our records, where one in force counts."""
    principal = actor.principal
    return has_plan(principal, plan) if principal.plans else is_plan(actor.plan, plan)
