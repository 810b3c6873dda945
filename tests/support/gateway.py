"""A gateway under test: the real one, in this process, with a real PostgreSQL, JWKS server and upstream."""

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from config.model import Settings
from gateway.app import running
from gateway.reload import Reloader
from tests.support.clerk_keys import AUTHORIZED_PARTY, ISSUER, mint_token
from tests.support.jwks_server import Answer, JwksServer, serve_jwks
from tests.support.upstream import RecordingUpstream, recording_upstream
from tests.support.wire import Reply, Wire, connected, request

MASTER_KEY = "a-key-of-these-tests-with-enough-characters"  # not a secret
ORIGIN = AUTHORIZED_PARTY
PUBLISHABLE_KEY = "pk_live_" + base64.b64encode(f"{ISSUER.removeprefix('https://')}$".encode()).decode()
ROUTES: list[dict[str, Any]] = [
    {"path": "/public/**", "auth": "none", "upstream": "app"},
    {"path": "/optional/**", "auth": "optional", "upstream": "app"},
    {"path": "/**", "auth": "required", "upstream": "app"},
]


@dataclass
class GatewayUnderTest:
    """Handles of one gateway and its surroundings."""

    port: int
    admin_port: int
    upstream: RecordingUpstream
    jwks: JwksServer
    settings: Settings
    written: dict[str, Any]
    reloader: Reloader

    async def reload(self, **changes: Any) -> bool:
        """Take its settings into force again, with changes laid over them, nested; True when they are."""
        wanted = Settings.model_validate(merged(self.written, changes))
        return await self.reloader.reload(lambda: wanted)

    async def ask(self, raw: bytes) -> Reply:
        """Send one request on a connection of its own."""
        async with connected(self.port) as wire:
            return await wire.ask(raw)

    async def get(self, target: str, *lines: str) -> Reply:
        """GET on a connection of its own."""
        return await self.ask(request(target, *lines))

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        """A connection to send bytes on."""
        async with connected(self.port) as wire:
            yield wire

    async def admin(self, target: str) -> Reply:
        """GET on the admin port."""
        async with connected(self.admin_port) as wire:
            return await wire.ask(request(target, "Connection: close"))

    async def metrics(self) -> str:
        """The text of /metrics."""
        return (await self.admin("/metrics")).body.decode()

    async def metric(self, name: str, **labels: str) -> float:
        """Read one sample from /metrics; 0 when it does not exist."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        total = 0.0
        for line in (await self.metrics()).splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(label in sample for label in wanted):
                total += float(value)
        return total


def merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested changes over settings."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result


def settings_for(database_url: str, jwks_url: str, upstream_url: str, **changes: Any) -> Settings:
    """Settings of a gateway under test; `changes` go over them, nested."""
    return Settings.model_validate(written_settings(database_url, jwks_url, upstream_url, **changes))


def written_settings(database_url: str, jwks_url: str, upstream_url: str, **changes: Any) -> dict[str, Any]:
    """The same as a file would say it."""
    base: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "public_url": ORIGIN,
        "clerk": {
            "publishable_key": PUBLISHABLE_KEY,
            "issuer": [ISSUER],
            "jwks_url": jwks_url,
            "authorized_parties": [ORIGIN],
            "allow_insecure_http": True,
        },
        "database": {"url": database_url},
        "upstreams": {"app": {"url": upstream_url}},
        "routes": ROUTES,
        "secrets": {"master_key": MASTER_KEY},
    }
    return merged(base, changes)


@asynccontextmanager
async def gateway_under_test(
    database_url: str, *, jwks_answer: Answer | None = None, jwks_body: bytes | None = None, **changes: Any
) -> AsyncIterator[GatewayUnderTest]:
    """Run one; what the key server answers can be set before the gateway asks."""
    async with serve_jwks() as jwks, recording_upstream() as upstream:
        jwks.answer, jwks.body = jwks_answer, jwks_body or jwks.body
        written = written_settings(database_url, jwks.url, upstream.url, **changes)
        settings = Settings.model_validate(written)
        async with running(settings) as gateway:
            ports = gateway.listen.port, gateway.admin.port
            yield GatewayUnderTest(*ports, upstream, jwks, settings, written, gateway.reloader)


__all__ = ["MASTER_KEY", "ORIGIN", "PUBLISHABLE_KEY", "ROUTES", "GatewayUnderTest", "gateway_under_test", "mint_token"]
