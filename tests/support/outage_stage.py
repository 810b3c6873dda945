"""A real gateway between real servers, with a fault proxy before each thing it depends on."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.clerk_backend import SECRET_KEY, ClerkBackend
from tests.support.counted_postgres import CountedPostgres
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.gateway import ROUTES, GatewayUnderTest, gateway_under_test, merged
from tests.support.jwks_server import JwksServer, serve_jwks
from tests.support.wire import Reply, bearer

SOCKETS = {"path": "/ws/**", "auth": "required", "accept": ["websocket_token", "session"], "upstream": "app"}
MACHINES = {"path": "/machines/**", "auth": "required", "accept": ["clerk_api_key"], "upstream": "app"}
DEADLINE_S = 30.0
ASKING: dict[str, Any] = {
    "cache": {"near_ttl": "1ms", "degraded_ttl": "1ms"},  # every request asks the records
    "tokens": {"scopes": [], "per_user": 1000},
    "routes": [SOCKETS, MACHINES, *ROUTES],
}
"""Settings under which what the near cache would hide is seen."""


@dataclass
class Stage:
    """A gateway, and what stands before each of its dependencies.

    Attributes:
        database: Counts the statements that reach PostgreSQL.
        keys: Behind the proxy `jwks`.
        backend: Behind the proxy `clerk`.
    """

    gateway: GatewayUnderTest
    postgresql: FaultProxy
    redis: FaultProxy
    jwks: FaultProxy
    clerk: FaultProxy
    database: CountedPostgres
    keys: JwksServer
    backend: ClerkBackend

    async def ask(self, credential: str, target: str = "/x") -> Reply:
        """GET with a bearer, once what `ASKING` remembers is over."""
        await asyncio.sleep(0.002)
        return await self.gateway.get(target, bearer(credential))

    async def ask_all(self, credentials: Sequence[str], target: str = "/x") -> list[Reply]:
        """The same for many at once."""
        return await asyncio.gather(*(self.ask(credential, target) for credential in credentials))

    async def until(self, status: int, credential: str, target: str = "/x") -> Reply:
        """Ask until the answer has this status."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                reply = await self.ask(credential, target)
                if reply.status == status:
                    return reply
                await asyncio.sleep(0.05)


@asynccontextmanager
async def outage_stage(database_url: str, redis_url: str, **changes: Any) -> AsyncIterator[Stage]:
    """Run one, all well; `changes` go over its settings, nested."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(CountedPostgres(database_url).running())
        keys = await stack.enter_async_context(serve_jwks())
        backend = await stack.enter_async_context(ClerkBackend().running())
        behind = (database.url, redis_url, keys.url, backend.url)
        proxies = [await stack.enter_async_context(fault_proxy(url)) for url in behind]
        postgresql, redis, jwks, clerk = (proxy.through(url) for proxy, url in zip(proxies, behind, strict=True))
        before_postgresql, before_redis, before_jwks, before_clerk = proxies
        settings = {
            "redis": {"url": redis},
            "clerk": {"jwks_url": jwks, "api_url": clerk, "secret_key": SECRET_KEY},
        }
        gateway = await stack.enter_async_context(gateway_under_test(postgresql, **merged(settings, changes)))
        yield Stage(gateway, before_postgresql, before_redis, before_jwks, before_clerk, database, keys, backend)


def asks_to_come_back(reply: Reply) -> bool:
    """Whether it is 503 with a moment to come back at, and without a word on the credential."""
    return (
        reply.status == 503
        and reply.code in ("store_unavailable", "verifier_unavailable")
        and int(reply.get("retry-after") or 0) >= 1
        and reply.all("www-authenticate") == []
    )
