"""How the parts of `gateway dev` are, asked when the start page is drawn."""

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from gateway.dev.place import Place

_DEADLINE_S = 1.0


@dataclass(frozen=True, slots=True)
class Part:
    """One part.

    Attributes:
        well: Answered within the deadline and said it is well.
        words: How it is, in a few words.
    """

    name: str
    address: str
    well: bool
    words: str


async def ask_parts(session: aiohttp.ClientSession, place: Place) -> tuple[Part, ...]:
    """Ask all parts at once; takes at most a second and raises nothing."""
    health, readiness, upstream = await asyncio.gather(
        _status(session, f"{place.admin_url}/healthz"),
        _status(session, f"{place.admin_url}/readyz"),
        _accepts(place.upstream_url),
    )
    ready = "ready" if readiness == 200 else "not ready: PostgreSQL or the signing keys are missing"
    return (
        Part("Gateway", place.gateway_url, health == 200, "running" if health == 200 else "does not answer"),
        Part("Database and signing keys", f"{place.admin_url}/readyz", readiness == 200, ready),
        Part("Issuer", place.issuer_url, True, "running"),
        Part(
            "Demo upstream" if place.demo else "Upstream",
            place.upstream_url,
            upstream,
            "accepts connections" if upstream else "accepts no connection",
        ),
    )


async def _status(session: aiohttp.ClientSession, url: str) -> int | None:
    """Fetch the status code; None when nothing answers in time."""
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=_DEADLINE_S)) as response:
            return response.status
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None


async def _accepts(url: str) -> bool:
    """Whether something listens where the URL points."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_DEADLINE_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
