"""Which own endpoints there are, and who may call each."""

from config.model import Route, Settings
from gateway.answer import Answer, json_answer
from gateway.api.current_user import CurrentUser
from gateway.api.endpoints import Call, Endpoint, Endpoints
from gateway.api.openapi import JWKS_PATH, openapi_document
from gateway.api.websocket_tokens import WebsocketTokens
from gateway.api.well_known import WellKnown, max_age_of
from gateway.identity.minting import MINT_SCOPE, Minter
from gateway.live.registry import Registry
from gateway.policy.routes import CompiledRoute, RouteTable
from provisioning.key_ring import KeyRing
from provisioning.organizations import Organizations
from provisioning.users import Users


def own_endpoints(
    settings: Settings, users: Users, organizations: Organizations, ring: KeyRing, minter: Minter, live: Registry
) -> Endpoints:
    """Build the table; `api.prefix` goes before every path but `/users/current` and `/.well-known/jwks.json`."""
    prefix = settings.api.prefix
    current_user = CurrentUser(users, organizations, minter)
    well_known = WellKnown(ring, max_age_of(settings.keys.publish_ahead))
    document = openapi_document(prefix, organizations=settings.api.organizations)

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
            WebsocketTokens(minter, live).create,
        ),
        Endpoint("GET", f"{prefix}/openapi.json", _rule("/openapi.json", auth="none"), openapi),
        Endpoint("GET", JWKS_PATH, _rule(JWKS_PATH, auth="none"), well_known.keys),
    ]
    if settings.api.organizations:
        path = "/organizations/current"
        endpoints.append(Endpoint("GET", prefix + path, _rule(path), current_user.show_organization))
    return Endpoints(endpoints)


def _rule(name: str, **rule: object) -> CompiledRoute:
    """Write a rule as the settings would; `name` is also the metric label."""
    route = Route.model_validate({"path": name, "auth": "required", "upstream": "gateway", **rule})
    return RouteTable.compile([route]).routes[0]
