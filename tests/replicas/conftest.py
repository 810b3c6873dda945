"""One fleet for all tests of a module that names its settings in `SETTINGS` and runs on one loop."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.support.fleet import Fleet, fleet_under_test
from tests.support.postgres import PostgresPerWorker
from tests.support.redis_server import RedisServer
from tests.support.websockets import echo_server


@pytest.fixture(scope="module")
def fleet_database_url(postgres: PostgresPerWorker) -> Iterator[str]:
    """DSN of a fresh, migrated database for one module."""
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    fleet_database_url: str,
    redis_server: RedisServer,
) -> AsyncIterator[Fleet]:
    """Three replicas; `/sockets/` leads to an echo server."""
    redis_server.flush()
    folder, url = tmp_path_factory.mktemp("fleet"), fleet_database_url
    async with echo_server() as echo:
        settings = {"upstreams": {"echo": {"url": echo}}, **request.module.SETTINGS}
        async with fleet_under_test(folder, url, redis_server.url, **settings) as running:
            yield running
