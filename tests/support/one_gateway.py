"""One gateway for all tests of a module, where its settings are the same for each: import these in a `conftest.py`.

A module names its settings in `SETTINGS` and runs on one loop: `pytestmark = pytest.mark.asyncio(loop_scope="module")`.
"""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.support.clerk_keys import jwks
from tests.support.gateway import GatewayUnderTest, gateway_under_test
from tests.support.postgres import PostgresPerWorker
from tests.support.upstream import answer_ok


@pytest.fixture(scope="module", params=[True, False], ids=["fast_lane", "aiohttp_lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    """Runs a module once with the fast lane in front and once without: both must give the same verdicts."""
    return bool(request.param)


@pytest.fixture(scope="module")
def module_database_url(postgres: PostgresPerWorker, fast_lane: bool) -> Iterator[str]:
    """DSN of a fresh, migrated database for one module and lane."""
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_gateway(
    request: pytest.FixtureRequest, module_database_url: str, fast_lane: bool
) -> AsyncIterator[GatewayUnderTest]:
    """The gateway of a module."""
    settings = {"fast_lane": fast_lane} | getattr(request.module, "SETTINGS", {})
    async with gateway_under_test(module_database_url, **settings) as gateway:
        yield gateway


@pytest.fixture
def gateway(module_gateway: GatewayUnderTest) -> GatewayUnderTest:
    """The module's gateway, with an upstream and a key server that have seen nothing and behave."""
    upstream, keys = module_gateway.upstream, module_gateway.jwks
    upstream.received.clear()
    upstream.lost.clear()
    upstream.respond, upstream.respond_early = answer_ok, None
    keys.body, keys.answer = jwks(), None
    return module_gateway


__all__ = ["fast_lane", "gateway", "module_database_url", "module_gateway"]
