"""Routes and Actors for policy tests: valid as they come, each test changes what it is about."""

from typing import Any

from config.model import Route
from gateway.actors.actor import Actor
from gateway.credentials.kinds import Carrier, CredentialKind
from gateway.policy.routes import CompiledRoute, RouteTable
from gateway.verify.principal import Principal
from provisioning.records import Role


def route(path: str = "/**", **keys: Any) -> Route:
    """One row of the settings."""
    return Route.model_validate({"path": path, "auth": "required", "upstream": "app"} | keys)


def table(*routes: Route) -> RouteTable:
    """The table of these rows."""
    return RouteTable.compile(routes)


def compiled(**keys: Any) -> CompiledRoute:
    """One compiled row."""
    return table(route(**keys)).routes[0]


def principal(**keys: Any) -> Principal:
    """A session's principal."""
    given: dict[str, Any] = {
        "kind": CredentialKind.SESSION,
        "carrier": Carrier.HEADER,
        "issuer": "https://clerk.example.com",
        "subject": "user_1",
        "expires_at": 4e9,
    }
    return Principal(**(given | keys))


def actor(
    role: Role = Role.USER, organization_role: str = "member", permissions: tuple[str, ...] = (), **keys: Any
) -> Actor:
    """A member; further keys go to the principal."""
    return Actor("usr_1", role, "org_1", organization_role, permissions, principal(**keys))
