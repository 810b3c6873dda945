"""Which own endpoints there are, and who may call each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from config.model import Route, Settings
from gateway.answer import Answer, json_answer
from gateway.api.api_tokens import ApiTokenEndpoints
from gateway.api.current_user import CurrentUser
from gateway.api.endpoints import Call, Endpoint, Endpoints
from gateway.api.leaked_tokens import LeakedTokens
from gateway.api.openapi import JWKS_PATH, openapi_document
from gateway.api.websocket_tokens import WebsocketTokens
from gateway.api.well_known import WellKnown, max_age_of
from gateway.identity.minting import MINT_SCOPE, Minter
from gateway.live.registry import Registry
from gateway.policy.routes import CompiledRoute, RouteTable
from gateway.verify.reporter_keys import ReporterKeys
from provisioning.key_ring import KeyRing
from provisioning.organizations import Organizations
from provisioning.tokens import Tokens
from provisioning.users import Users


@dataclass(frozen=True, slots=True)
class Records:
    """What own endpoints ask and change.

    Attributes:
        forget_tokens: Drops what this process remembers of a person's API tokens, and ends what is open with the one
            that is named.
        ring: What the gateway signs with.
        live: What is open, by whom.
        reporter_keys: Of whoever reports leaked tokens; None: nobody does.
    """

    users: Users
    organizations: Organizations
    tokens: Tokens
    forget_tokens: Callable[[str, str | None], None]
    ring: KeyRing
    minter: Minter
    live: Registry
    reporter_keys: ReporterKeys | None = None


def own_endpoints(settings: Settings, records: Records) -> Endpoints:
    """Build the table; `api.prefix` goes before every path but `/users/current` and `/.well-known/jwks.json`."""
    prefix = settings.api.prefix
    current_user = CurrentUser(records.users, records.organizations, records.tokens, records.minter)
    well_known = WellKnown(records.ring, max_age_of(settings.keys.publish_ahead))
    document = openapi_document(
        prefix, organizations=settings.api.organizations, leaks=records.reporter_keys is not None
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
        Endpoint("GET", JWKS_PATH, _rule(JWKS_PATH, auth="none"), well_known.keys),
    ]
    if settings.api.organizations:
        path = "/organizations/current"
        endpoints.append(Endpoint("GET", prefix + path, _rule(path), current_user.show_organization))
    return Endpoints(endpoints)


def _api_tokens(prefix: str, records: Records) -> Iterator[Endpoint]:

    def limit(user_id: str, token_id: str, until: float) -> None:
        records.live.limit(user=user_id, token=token_id, until=until)

    endpoints = ApiTokenEndpoints(records.tokens, records.forget_tokens, limit)
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


def _leaked_tokens(settings: Settings, records: Records) -> Iterator[Endpoint]:
    if records.reporter_keys is None:
        return
    names = {digest.lower(): token.name for token in settings.system_tokens for digest in token.sha256}
    endpoint = LeakedTokens(records.tokens, records.reporter_keys, records.forget_tokens, names)
    path = "/tokens/leaked"
    yield Endpoint("POST", settings.api.prefix + path, _rule(path, auth="none"), endpoint.report)


def _rule(name: str, **rule: object) -> CompiledRoute:
    """Write a rule as the settings would; `name` is also the metric label."""
    route = Route.model_validate({"path": name, "auth": "required", "upstream": "gateway", **rule})
    return RouteTable.compile([route]).routes[0]
