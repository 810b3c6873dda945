"""Real servers, one of each per test process, and a fresh database per test."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import HealthCheck, is_hypothesis_test, settings

import gateway
from tests.support.postgres import PostgresPerWorker, PostgresServer
from tests.support.redis_server import RedisServer

# Where our code may block, and why.
MAY_BLOCK = (
    (
        "asyncpg/connect_utils.py",
        {"_parse_connect_arguments"},
    ),  # looks for password and certificate files; no other way
    ("provisioning/database/embedded.py", {"_spawn"}),  # a fork belongs on the thread that lives as long as the child
    ("gateway/workers/process.py", {"_spawn"}),  # likewise
    ("linecache.py", {"updatecache"}),  # lines of a traceback, when something unexpected is logged
    ("rich/traceback.py", {"_render_stack"}),  # likewise, as these tests print it
    ("provisioning/database/migrate.py", {"_run", "_upgrade"}),  # runs on a loop of its own, in a thread of its own
)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run on the loop that serves; its transports differ from asyncio's where it hurts."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_report_header() -> str:
    """Say which form of the request's way is tested; compiled, `blockbuster` does not see its frames."""
    return "the request's way: compiled" if gateway.IS_COMPILED else "the request's way: sources"


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """Fail a test in which our code blocks the event loop."""
    with blockbuster_ctx(scanned_modules=["config", "gateway", "provisioning"]) as guard:
        for blocking in guard.functions.values():
            for filename, functions in MAY_BLOCK:
                blocking.can_block_in(filename, functions)
        yield guard


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresPerWorker]:
    """The PostgreSQL of this test process, started when the first test wants it."""
    server = PostgresPerWorker(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database_url(postgres: PostgresPerWorker) -> Iterator[str]:
    """DSN (TCP, 127.0.0.1, no password) of a fresh, migrated database."""
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest.fixture
def empty_database_url(postgres: PostgresPerWorker) -> Iterator[str]:
    """DSN of a fresh database without tables."""
    url = postgres.create_empty()
    yield url
    postgres.drop(url)


@pytest.fixture
async def postgres_server(tmp_path: Path) -> AsyncIterator[PostgresServer]:
    """A migrated server of this test's own, to stop, freeze and start again."""
    server = PostgresServer(tmp_path / "own-postgres")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The redis-server of this test process."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """URL of an empty Redis."""
    redis_server.flush()
    yield redis_server.url
    redis_server.flush()


# `make nightly` sets the profile. Tests name their own numbers of examples, which no profile overrules, so each runs
# more often instead, every time over other examples.
ROUNDS = 25 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 1
# Nothing is judged by how long it took: a busy machine is no finding.
TIMELESS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("everyday", TIMELESS, derandomize="CI" in os.environ)
settings.register_profile("nightly", TIMELESS, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "everyday"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat property tests."""
    if ROUNDS > 1 and is_hypothesis_test(metafunc.function):
        metafunc.fixturenames.append("nightly_round")
        metafunc.parametrize("nightly_round", range(ROUNDS))
