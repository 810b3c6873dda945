"""What escapes from a handler is never called the client's fault."""

import dataclasses
from collections.abc import AsyncIterator

import pytest

from gateway.answer import Answer
from gateway.api.endpoints import Call
from tests.support.gateway import GatewayUnderTest, gateway_under_test

PATH = "/.well-known/jwks.json"


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[GatewayUnderTest]:
    async with gateway_under_test(database_url) as running:
        yield running


@pytest.mark.parametrize("kind", [ConnectionResetError, BrokenPipeError, TimeoutError, RecursionError, OSError])
async def test_an_error_that_nobody_expected_is_ours_whatever_its_kind(
    gateway: GatewayUnderTest, kind: type[Exception]
) -> None:
    """aiohttp takes a ConnectionError for the client's, of whichever connection it is."""

    async def failing(_: Call) -> Answer:
        raise kind("of something behind us")

    methods = gateway.reloader.current.pipeline.rooms.endpoints._by_path[PATH]
    methods["GET"] = dataclasses.replace(methods["GET"], handler=failing)
    reply = await gateway.get(PATH)

    assert (reply.status, reply.code) == (500, "internal_error")
    assert "behind us" not in reply.body.decode()
