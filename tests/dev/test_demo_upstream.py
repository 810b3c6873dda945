"""The demo upstream shows exactly what reached it."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import pytest
from aiohttp import ClientSession, web

from gateway.dev.assets import load_assets
from gateway.dev.demo_upstream import SHOWN_BYTES, demo_application
from gateway.dev.ports import listening_socket, port_of


@pytest.fixture
async def port() -> AsyncIterator[int]:
    listener = listening_socket(0)
    runner = web.AppRunner(
        demo_application("http://127.0.0.1:5555", await asyncio.to_thread(load_assets)), shutdown_timeout=0.1
    )
    await runner.setup()
    await web.SockSite(runner, listener).start()
    yield port_of(listener)
    await runner.cleanup()


async def exchange(port: int, request: bytes) -> tuple[bytes, Any]:
    """Send bytes, read to the end of the connection; returns head and JSON body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return head, json.loads(body)


async def test_fields_are_shown_in_order_with_duplicates_and_spelling(port: int) -> None:
    lines = [("Host", "x"), ("x-A", "1"), ("X_b", "2"), ("X-a", "3"), ("x-A", "1"), ("Connection", "close")]
    head = "".join(f"{name}: {value}\r\n" for name, value in lines)

    _, seen = await exchange(port, f"GET /a/../%7Eb?c=%20&&d HTTP/1.1\r\n{head}\r\n".encode())

    assert seen["headers"] == [list(line) for line in lines]
    assert (seen["method"], seen["target"], seen["version"]) == ("GET", "/a/../%7Eb?c=%20&&d", "1.1")


async def test_body_is_shown_and_hashed(port: int) -> None:
    _, seen = await exchange(
        port, b"PATCH / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nh\xc3\xa4\x00y"
    )

    assert seen["body"]["text"] == "hä\0y"
    assert seen["body"]["size"] == 5
    assert seen["body"]["sha256"] == hashlib.sha256("hä\0y".encode()).hexdigest()


async def test_large_body_is_counted_but_not_echoed(port: int) -> None:
    sent = bytes(5 * 2**20)
    async with ClientSession() as client, client.put(f"http://127.0.0.1:{port}/x", data=BytesIO(sent)) as response:
        seen = await response.json()

    assert seen["body"]["size"] == len(sent)
    assert seen["body"]["sha256"] == hashlib.sha256(sent).hexdigest()
    assert len(seen["body"]["text"]) == SHOWN_BYTES
    assert seen["body"]["shown_whole"] is False


async def test_size_answers_the_size_alone(port: int) -> None:
    async with ClientSession() as client, client.post(f"http://127.0.0.1:{port}/a/size", data=b"12345") as response:
        assert await response.json() == {"size": 5}


async def test_browser_gets_an_escaped_page_that_singles_out_identity(port: int) -> None:
    headers = {"Accept": "text/html", "X-Actor-Id": "usr_1", "X-Other": "<script>alert(1)</script>"}
    async with ClientSession() as client, client.get(f"http://127.0.0.1:{port}/a", headers=headers) as response:
        page = await response.text()

    assert response.content_type == "text/html"
    assert page.count("usr_1") == 2
    assert "<script" not in page
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


async def test_events_arrive_one_by_one(port: int) -> None:
    async with ClientSession() as client, client.get(f"http://127.0.0.1:{port}/public/events?count=2") as response:
        first = await response.content.readuntil(b"\n\n")
        rest = await response.content.read()

    assert response.content_type == "text/event-stream"
    assert first == b"id: 0\ndata: event 0 of 2\n\n"
    assert rest == b"id: 1\ndata: event 1 of 2\n\n"


@pytest.mark.parametrize("size", [0, 1, 200_000])
async def test_as_many_bytes_come_as_asked(port: int, size: int) -> None:
    async with ClientSession() as client, client.get(f"http://127.0.0.1:{port}/bytes/{size}") as response:
        body = await response.read()

    assert response.headers["Content-Length"] == str(size)
    assert len(body) == size


async def test_client_that_goes_away_is_no_error(port: int, caplog: pytest.LogCaptureFixture) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
    await writer.drain()
    writer.transport.abort()
    _, seen = await exchange(port, b"GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    assert seen["target"] == "/next"
    assert not caplog.records
