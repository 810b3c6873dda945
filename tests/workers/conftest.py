"""A fresh crew of two workers for each test that wants one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.workers import Crew, crew_under_test


@pytest.fixture
async def crew(tmp_path: Path, database_url: str, redis_url: str) -> AsyncIterator[Crew]:
    """Two workers."""
    async with crew_under_test(tmp_path, database_url, redis_url) as running:
        yield running
