"""The body of a request that the gateway answers itself, read whole: bounded in bytes and in time."""

import asyncio

from aiohttp import web
from aiohttp.streams import StreamReader

from gateway.errors import ContentTooLarge, RequestMalformed
from gateway.listen.errors import BodyTimedOut

PORTION = 64 * 1024
"""Bytes that may take as long as a head may; larger bodies may take as much longer."""


async def read_whole(content: StreamReader, cap: int, timeout_s: float) -> bytes:
    """Read a body that nobody read of; who stops sending holds neither memory nor a connection (D02).

    Args:
        content: As aiohttp receives it.
        cap: The most bytes.
        timeout_s: For the first portion, and again for each that came.

    Raises:
        ContentTooLarge: It has more.
        BodyTimedOut: It takes longer.
        RequestMalformed: Its chunks are none.
    """
    body = bytearray()
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            async for piece in content.iter_any():
                body += piece
                if len(body) > cap:
                    raise ContentTooLarge
                deadline.reschedule(began + timeout_s * (1 + len(body) // PORTION))
    except web.RequestPayloadError:
        raise RequestMalformed("body_grammar") from None
    except TimeoutError:
        raise BodyTimedOut from None
    return bytes(body)
