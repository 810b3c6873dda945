from collections.abc import AsyncIterator

import aiohttp
import pytest

from provisioning.database.pool import Database
from tests.support.receivers import FakePosthog, FakeSlack, FakeStripe


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as made:
        yield made


@pytest.fixture
async def slack_fake() -> AsyncIterator[FakeSlack]:
    fake = FakeSlack()
    async with fake.running():
        yield fake


@pytest.fixture
async def posthog_fake() -> AsyncIterator[FakePosthog]:
    fake = FakePosthog()
    async with fake.running():
        yield fake


@pytest.fixture
async def stripe_fake() -> AsyncIterator[FakeStripe]:
    fake = FakeStripe()
    async with fake.running():
        yield fake
