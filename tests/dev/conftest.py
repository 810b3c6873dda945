from collections.abc import AsyncIterator

import pytest

from tests.dev.places import Served, serve_issuer


@pytest.fixture
async def issuer() -> AsyncIterator[Served]:
    served = await serve_issuer()
    yield served
    await served.close()
