"""Bodies that the gateway reads itself, as aiohttp hands them over."""

import asyncio

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader

from gateway.errors import ContentTooLarge
from gateway.listen.errors import BodyTimedOut
from gateway.listen.own_body import PORTION, read_whole

CAP = 100 * PORTION


@pytest.fixture
async def content() -> StreamReader:
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    return StreamReader(protocol, limit=CAP, loop=loop)


async def test_a_body_is_read_whole(content: StreamReader) -> None:
    content.feed_data(b"hel")
    asyncio.get_running_loop().call_soon(content.feed_data, b"lo")
    asyncio.get_running_loop().call_later(0.01, content.feed_eof)

    assert await read_whole(content, CAP, 10) == b"hello"


async def test_a_body_over_the_cap_is_refused_before_its_end(content: StreamReader) -> None:
    content.feed_data(b"hello")

    with pytest.raises(ContentTooLarge):
        await read_whole(content, 4, 10)


async def test_a_body_that_falls_silent_is_given_up(content: StreamReader) -> None:
    content.feed_data(b"hel")

    with pytest.raises(BodyTimedOut):
        await read_whole(content, CAP, 0.01)


async def test_a_large_body_may_take_longer(content: StreamReader) -> None:
    content.feed_data(b"a" * 99 * PORTION)
    asyncio.get_running_loop().call_later(0.3, content.feed_eof)

    assert len(await read_whole(content, CAP, 0.1)) == 99 * PORTION
