"""Composition of what tells operators which dependency is away: the breakers, by the names that metrics have."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.verify.signing_keys import SigningKeys
from provisioning.clerk_api import ClerkApi
from provisioning.database.breaker import Breaker
from provisioning.database.pool import Database

if TYPE_CHECKING:
    from gateway.shared_state.client import SharedRedis


def breakers_of(
    database: Database, keys: SigningKeys, clerk_api: ClerkApi, shared: "SharedRedis | None"
) -> Mapping[str, Breaker]:
    """Collect them; Redis is among them where one is set."""
    breakers = {"postgresql": database.breaker, "jwks": keys.breaker, "clerk_api": clerk_api.breaker}
    return breakers if shared is None else breakers | {"redis": shared.breaker}
