"""One gateway for each test: reloads leave nothing as it was."""

from collections.abc import AsyncIterator

import pytest

from tests.support.gateway import GatewayUnderTest, gateway_under_test


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def gateway(database_url: str, fast_lane: bool) -> AsyncIterator[GatewayUnderTest]:
    async with gateway_under_test(database_url, fast_lane=fast_lane) as running:
        yield running
