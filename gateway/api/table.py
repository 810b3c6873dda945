"""Which own endpoints there are, and who may call each."""

from collections.abc import Iterator
from dataclasses import dataclass

from config.model import Route, Settings
from gateway.answer import Answer, json_answer
from gateway.api.api_tokens import ApiTokenEndpoints
from gateway.api.audit_events import AUDIT_SCOPE, AuditEvents
from gateway.api.clerk_webhooks import ClerkWebhooks
from gateway.api.current_user import CurrentUser
from gateway.api.endpoints import Call, Endpoint, Endpoints
from gateway.api.leaked_tokens import LeakedTokens
from gateway.api.members import Members
from gateway.api.openapi import JWKS_PATH, openapi_document
from gateway.api.people import People, nothing_here
from gateway.api.queries import Cursors
from gateway.api.sign_outs import SignOutEndpoints
from gateway.api.stripe_webhooks import StripeWebhooks
from gateway.api.websocket_tokens import WebsocketTokens
from gateway.api.well_known import WellKnown, max_age_of
from gateway.identity.minting import MINT_SCOPE, Minter
from gateway.live.registry import Registry
from gateway.policy.routes import CompiledRoute, RouteTable
from gateway.revocation.revocations import Revocations
from gateway.verify.reporter_keys import ReporterKeys
from provisioning.administration import Administration
from provisioning.arrivals import Arrivals
from provisioning.audit_trail import AuditTrail
from provisioning.key_ring import KeyRing
from provisioning.memberships import Memberships
from provisioning.organizations import Organizations
from provisioning.token_rules import ADMIN_SCOPE
from provisioning.tokens import Tokens
from provisioning.users import Users


@dataclass(frozen=True, slots=True)
class Records:
    """What own endpoints ask and change.

    Attributes:
        revocations: Told of whatever is to be believed no more.
        ring: What the gateway signs with.
        live: What is open, by whom.
        trail: The audit trail.
        cursors: Of its pages.
        arrivals: Makes a person's records whole.
        reporter_keys: Of whoever reports leaked tokens; None: nobody does.
        stripe_webhooks: Takes what Stripe says of subscriptions; None: it is not asked to.
        clerk_webhooks: Answers Clerk; None: there is no such endpoint.
        sign_outs: Ends all sessions of a person.
    """

    users: Users
    organizations: Organizations
    tokens: Tokens
    revocations: Revocations
    ring: KeyRing
    minter: Minter
    live: Registry
    trail: AuditTrail
    cursors: Cursors
    memberships: Memberships
    administration: Administration
    arrivals: Arrivals
    sign_outs: SignOutEndpoints
    reporter_keys: ReporterKeys | None = None
    stripe_webhooks: StripeWebhooks | None = None
    clerk_webhooks: ClerkWebhooks | None = None


def own_endpoints(settings: Settings, records: Records) -> Endpoints:
    """Build the table; `api.prefix` goes before every path but `/users/current` and `/.well-known/jwks.json`."""
    prefix = settings.api.prefix
    current_user = CurrentUser(
        records.users, records.organizations, records.memberships, records.tokens, records.minter
    )
    well_known = WellKnown(records.ring, max_age_of(settings.keys.publish_ahead))
    document = openapi_document(
        prefix,
        organizations=settings.api.organizations,
        leaks=records.reporter_keys is not None,
        stripe=records.stripe_webhooks is not None,
        clerk_webhooks=records.clerk_webhooks is not None,
        admin=settings.api.admin,
        debug=settings.debug.enabled,
    )

    async def openapi(call: Call) -> Answer:
        return json_answer(200, document)

    endpoints = [
        Endpoint("GET", "/users/current", _rule("/users/current"), current_user.show),
        Endpoint(
            "PATCH",
            f"{prefix}/users/current/settings",
            _rule("/users/current/settings", scopes=("profile:write",)),
            current_user.merge_settings,
        ),
        Endpoint(
            "POST",
            f"{prefix}/users/current/websocket-token",
            _rule("/users/current/websocket-token", scopes=(MINT_SCOPE,)),
            WebsocketTokens(records.minter, records.live).create,
        ),
        Endpoint("GET", f"{prefix}/openapi.json", _rule("/openapi.json", auth="none"), openapi),
        *_api_tokens(prefix, records),
        *_leaked_tokens(settings, records),
        *_webhooks(prefix, records),
        *_people(settings, records),
        *_sign_outs(settings, records),
        Endpoint("GET", JWKS_PATH, _rule(JWKS_PATH, auth="none"), well_known.keys),
    ]
    if settings.api.organizations:
        path = "/organizations/current"
        endpoints.append(Endpoint("GET", prefix + path, _rule(path), current_user.show_organization))
        members = Members(records.memberships)
        endpoints.append(Endpoint("GET", f"{prefix}{path}/members", _rule(f"{path}/members"), members.list_all))
        endpoints.extend(_audit_events(prefix, records))
    return Endpoints(endpoints)


def _api_tokens(prefix: str, records: Records) -> Iterator[Endpoint]:
    endpoints = ApiTokenEndpoints(records.tokens, records.revocations)
    listed, one = "/users/current/api-tokens", "/users/current/api-tokens/{id}"
    for method, path, handler in (
        ("GET", listed, endpoints.list_all),
        ("POST", listed, endpoints.create),
        ("GET", one, endpoints.show),
        ("PATCH", one, endpoints.change),
        ("DELETE", one, endpoints.revoke),
        ("POST", f"{one}/rotate", endpoints.rotate),
        ("POST", f"{one}/reveal", endpoints.reveal),
    ):
        # The rule is named by its label, in which a segment of any kind is written as in routes.
        yield Endpoint(method, prefix + path, _rule(path.replace("{id}", "*"), scopes=("tokens:manage",)), handler)


def _audit_events(prefix: str, records: Records) -> Iterator[Endpoint]:
    path = "/organizations/current/audit-events"
    rule = _rule(path, organization_roles=("admin",), scopes=(AUDIT_SCOPE,))
    yield Endpoint("GET", prefix + path, rule, AuditEvents(records.trail, records.cursors).list_page)


def _leaked_tokens(settings: Settings, records: Records) -> Iterator[Endpoint]:
    if records.reporter_keys is None:
        return
    names = {digest.lower(): token.name for token in settings.system_tokens for digest in token.sha256}
    endpoint = LeakedTokens(records.tokens, records.reporter_keys, records.revocations, names)
    path = "/tokens/leaked"
    yield Endpoint("POST", settings.api.prefix + path, _rule(path, auth="none"), endpoint.report)


def _webhooks(prefix: str, records: Records) -> Iterator[Endpoint]:
    """What is signed, so that nobody else needs to be known."""
    stripe, clerk = "/webhooks/stripe", "/webhooks/clerk"
    if records.stripe_webhooks is not None:
        yield Endpoint("POST", prefix + stripe, _rule(stripe, auth="none"), records.stripe_webhooks.receive)
    if records.clerk_webhooks is not None:
        yield Endpoint("POST", prefix + clerk, _rule(clerk, auth="none"), records.clerk_webhooks.receive)


def _people(settings: Settings, records: Records) -> Iterator[Endpoint]:
    """Endpoints for administrators: role ADMIN, and for an API token the scope `admin` as well."""
    people = People(records.users, records.memberships, records.administration, records.arrivals, records.revocations)
    rule: dict[str, object] = {"roles": ("ADMIN",), "scopes": (ADMIN_SCOPE,)}
    prefix, listed, one = settings.api.prefix, "/admin/users", "/admin/users/{id}"
    for method, path, handler in (
        ("GET", listed, people.list_all),
        ("GET", one, people.show),
        ("PATCH", f"{one}/role", people.set_role),
        ("POST", f"{one}/disable", people.disable),
        ("POST", f"{one}/enable", people.enable),
    ):
        if settings.api.admin:
            yield Endpoint(method, prefix + path, _rule(path.replace("{id}", "*"), **rule), handler)
    path = "/users/{id}/debug/provision"
    name = path.replace("{id}", "*")
    if settings.debug.enabled:
        yield Endpoint("POST", prefix + path, _rule(name, **rule), people.repair)
    else:  # kept from routes all the same: no upstream is to take this for its own
        yield Endpoint("POST", prefix + path, _rule(name, auth="none"), nothing_here)


def _sign_outs(settings: Settings, records: Records) -> Iterator[Endpoint]:
    own, one = "/users/current/sign-out-everywhere", "/admin/users/{id}/revoke"
    prefix, endpoints = settings.api.prefix, records.sign_outs
    yield Endpoint("POST", prefix + own, _rule(own), endpoints.own)
    if settings.api.admin:
        rule = _rule(one.replace("{id}", "*"), roles=("ADMIN",), scopes=(ADMIN_SCOPE,))
        yield Endpoint("POST", prefix + one, rule, endpoints.of_person)


def _rule(name: str, **rule: object) -> CompiledRoute:
    """Write a rule as the settings would; `name` is also the metric label."""
    route = Route.model_validate({"path": name, "auth": "required", "upstream": "gateway", **rule})
    return RouteTable.compile([route]).routes[0]
