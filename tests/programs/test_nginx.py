"""nginx before the gateway as the proxy it trusts, and behind it as the upstream."""

import asyncio
import hashlib
import io
import os
import random
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.nginx import Nginx, nginx
from tests.support.upstream import Received

SIZE = 32 * 2**20
CHUNK = 100_000  # no power of two, so that no buffer's edge meets a chunk's
CLIENT = "127.0.0.2"  # another address than the proxy's, as a client has
FRONT = """
location / {
  proxy_pass http://gateway;
  proxy_http_version 1.1;
  proxy_buffering off;
  proxy_request_buffering off;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto https;
  proxy_set_header X-Forwarded-Host $http_host;
}
"""
FILES = "root {folder}/back/files; location / {{ dav_methods PUT; create_full_put_path on; }}"
CLOSING = 'keepalive_requests {requests}; keepalive_timeout {timeout}; location / {{ return 200 "ok"; }}'
TIMEOUT = ClientTimeout(total=120)


@dataclass(frozen=True, slots=True)
class Chain:
    """Client, nginx, gateway, nginx; routes under `/files/` lead to the nginx behind, the others to a recorder."""

    front: Nginx
    gateway: GatewayUnderTest
    back: Nginx


@asynccontextmanager
async def chain(folder: Path, database_url: str, back: str, **changes: Any) -> AsyncIterator[Chain]:
    with ExitStack() as stack:
        behind = stack.enter_context(nginx(folder / "back", back))
        changes.setdefault("trusted_proxies", ["127.0.0.1"])
        changes["upstreams"] = {"back": {"url": behind.url}}
        changes["routes"] = [
            {"path": "/files/**", "auth": "required", "upstream": "back"},
            {"path": "/public/**", "auth": "none", "upstream": "app"},
        ]
        async with gateway_under_test(database_url, **changes) as gateway:
            pool = f"upstream gateway {{ server 127.0.0.1:{gateway.port}; keepalive 8; }}"
            before = await asyncio.to_thread(stack.enter_context, nginx(folder / "front", FRONT, pool))
            yield Chain(before, gateway, behind)


@pytest.fixture
async def whole(tmp_path: Path, database_url: str, fast_lane: bool) -> AsyncIterator[Chain]:
    async with chain(tmp_path, database_url, FILES.format(folder=tmp_path), fast_lane=fast_lane) as built:
        yield built


@pytest.fixture
async def client() -> AsyncIterator[ClientSession]:
    connector = TCPConnector(limit=0, local_addr=(CLIENT, 0))
    async with ClientSession(connector=connector, timeout=TIMEOUT) as session:
        yield session


def signed_in() -> dict[str, str]:
    return {"Authorization": f"Bearer {mint_token()}"}


async def test_trusted_nginx_tells_client_scheme_and_host(whole: Chain, client: ClientSession) -> None:
    headers = {"Host": "www.example.com", "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher"}
    async with client.get(f"{whole.front.url}/public/x?q=%C3%A9", headers=headers) as response:
        assert response.status == 200

    seen = whole.gateway.upstream.last
    assert seen.target == b"/public/x?q=%C3%A9"
    assert seen.one("x-forwarded-for") == CLIENT
    assert seen.one("x-forwarded-proto") == "https"
    assert seen.one("x-forwarded-host") == "www.example.com"
    assert seen.one("host") == "www.example.com"


async def test_nginx_that_is_not_trusted_tells_nothing(
    tmp_path: Path, database_url: str, client: ClientSession
) -> None:
    async with (
        chain(tmp_path, database_url, FILES.format(folder=tmp_path), trusted_proxies=[]) as built,
        client.get(f"{built.front.url}/public/x", headers={"Host": "www.example.com"}) as response,
    ):
        assert response.status == 200

        seen = built.gateway.upstream.last
        assert seen.one("x-forwarded-for") == "127.0.0.1"
        assert seen.one("x-forwarded-proto") == "http"


@pytest.mark.parametrize("chunked", [False, True], ids=["of known length", "in chunks"])
async def test_large_body_is_the_same_after_the_way_up_and_down(
    whole: Chain, client: ClientSession, chunked: bool
) -> None:
    body = os.urandom(SIZE)
    url = f"{whole.front.url}/files/large.bin"
    async with client.put(url, data=pieces(body) if chunked else io.BytesIO(body), headers=signed_in()) as response:
        assert response.status == 201
    async with client.get(url, headers=signed_in()) as response:
        assert response.status == 200
        assert response.headers["Content-Length"] == str(SIZE)
        returned = hashlib.sha256(await response.read())

    stored = (whole.back.folder / "files/files/large.bin").read_bytes()
    assert hashlib.sha256(stored).digest() == returned.digest() == hashlib.sha256(body).digest()


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), CHUNK):
        yield body[start : start + CHUNK]


async def test_part_of_a_file_comes_as_asked(whole: Chain, client: ClientSession) -> None:
    url = f"{whole.front.url}/files/part.bin"
    async with client.put(url, data=b"0123456789", headers=signed_in()) as response:
        assert response.status == 201
    async with client.get(url, headers={**signed_in(), "Range": "bytes=3-6"}) as response:
        part = await response.read()

        assert response.status == 206
        assert part == b"3456"
        assert response.headers["Content-Range"] == "bytes 3-6/10"
        etag = response.headers["ETag"]
    async with client.get(url, headers={**signed_in(), "If-None-Match": etag}) as response:
        assert response.status == 304
        assert await response.read() == b""


async def test_both_sides_keep_their_connections(whole: Chain, client: ClientSession) -> None:
    url = f"{whole.front.url}/files/kept.bin"
    async with client.put(url, data=b"x", headers=signed_in()) as response:
        assert response.status == 201
    for _ in range(50):
        async with client.get(url, headers=signed_in()) as response:
            assert response.status == 200

    assert len(whole.back.requests()) == 51
    assert whole.back.connections() == 1
    # Were none kept there would be 51; another server's client may have had the gateway's port a moment ago.
    assert 1 <= sockets_at(whole.gateway.port) < 10


def sockets_at(port: int) -> int:
    """How many connections to this port Linux remembers, those that ended a moment ago included."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    own = f":{port:04X}"
    clients = {row[1] for row in rows if row[2].endswith(own)}
    servers = {row[2] for row in rows if row[1].endswith(own) and not row[2].endswith(":0000")}
    return len(clients | servers)


async def test_events_arrive_one_by_one(whole: Chain, client: ClientSession) -> None:
    seen_first = asyncio.Event()

    async def stream(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"9\r\ndata: 1\n\n\r\n")
        await seen_first.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    whole.gateway.upstream.respond = stream
    async with client.get(f"{whole.front.url}/public/events") as response:
        first = await response.content.readuntil(b"\n\n")
        seen_first.set()
        rest = await response.content.read()

    assert (first, rest) == (b"data: 1\n\n", b"data: 2\n\n")


async def statuses(client: ClientSession, url: str, count: int) -> list[int]:
    """Ask that many times at once."""
    headers = signed_in()

    async def one() -> int:
        async with client.get(url, headers=headers) as response:
            await response.read()
            return response.status

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def test_upstream_that_soon_closes_kept_connections_fails_no_request_of_a_crowd(
    tmp_path: Path, database_url: str, client: ClientSession, fast_lane: bool
) -> None:
    back = CLOSING.format(requests=3, timeout="1s")
    async with chain(tmp_path, database_url, back, fast_lane=fast_lane) as built:
        url = f"http://127.0.0.1:{built.gateway.port}/files/x"
        answers = await statuses(client, url, 300)
        for pause_s in (0.9, 1.0, 1.1):  # around the moment at which the upstream closes
            await asyncio.sleep(pause_s)
            answers += await statuses(client, url, 300)

        assert answers == [200] * 1200


async def test_upstream_that_closes_just_when_asked_fails_no_request_of_a_row(
    tmp_path: Path, database_url: str, client: ClientSession, fast_lane: bool
) -> None:
    chance = random.Random(7)
    back = CLOSING.format(requests=3, timeout="20ms")
    async with chain(tmp_path, database_url, back, fast_lane=fast_lane) as built:
        url = f"http://127.0.0.1:{built.gateway.port}/files/x"
        answers: list[int] = []
        for _ in range(300):
            answers += await statuses(client, url, 1)
            await asyncio.sleep(chance.choice((0.0, chance.uniform(0.018, 0.023))))

        assert answers == [200] * 300
        assert 100 <= built.back.connections() <= 300
