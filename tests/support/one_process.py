"""`gateway serve` for one test, before an upstream of that test: import these in a `conftest.py`."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import MASTER_KEY, ORIGIN, PUBLISHABLE_KEY, ROUTES
from tests.support.jwks_server import serve_jwks
from tests.support.large_bodies import large
from tests.support.serve_process import ServeProcess, serve_process
from tests.support.upstream import RecordingUpstream, recording_upstream


@pytest.fixture
async def upstream() -> AsyncIterator[RecordingUpstream]:
    """The upstream of one test."""
    async with recording_upstream() as recording:
        yield recording


@pytest.fixture
def large_bodies(upstream: RecordingUpstream) -> None:
    """Lets the upstream answer with as many bytes as a target says, or sum up as many as come."""
    upstream.respond_early = large


@pytest.fixture
async def served(
    tmp_path: Path, database_url: str, upstream: RecordingUpstream, fast_lane: bool
) -> AsyncIterator[ServeProcess]:
    """`gateway serve` in a process of its own, whose memory can be watched."""
    async with serve_jwks() as keys:
        settings: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0"},
            "fast_lane": fast_lane,
            "clerk": {
                "publishable_key": PUBLISHABLE_KEY,
                "jwks_url": keys.url,
                "authorized_parties": [ORIGIN],
                "allow_insecure_http": True,
            },
            "database": {"url": database_url},
            "upstreams": {"app": {"url": upstream.url}},
            "routes": ROUTES,
            "secrets": {"master_key": MASTER_KEY},
        }
        async with serve_process(tmp_path, settings) as process:
            yield process
