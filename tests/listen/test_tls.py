"""The listener over TLS, on both lanes."""

import asyncio
import socket
import ssl
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.upstream import Received
from tests.support.wire import Wire, bearer, request


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def gateway(database_url: str, fast_lane: bool, authority: Authority) -> AsyncIterator[GatewayUnderTest]:
    changes = over_tls(authority) | {"fast_lane": fast_lane}
    async with gateway_under_test(database_url, **changes) as running:
        yield running


def over_tls(authority: Authority) -> dict[str, Any]:
    files = authority.issue("127.0.0.1", "localhost")
    return {"tls": {"certificate": str(files.certificate), "key": str(files.key)}}


@asynccontextmanager
async def secured(gateway: GatewayUnderTest, context: ssl.SSLContext, limit: int = 2**22) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context, limit=limit)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


async def test_requests_of_every_sort_are_served_on_one_connection(
    gateway: GatewayUnderTest, authority: Authority
) -> None:
    async with secured(gateway, authority.client()) as wire:
        got = [await wire.ask(request("/x", bearer(mint_token()))) for _ in range(3)]
        posted = await wire.ask(request("/x", bearer(mint_token()), method="POST", body=b"y" * 200_000))
        own = await wire.ask(request("/users/current", bearer(mint_token())))
        refused = await wire.ask(request("/x"))

    assert [reply.status for reply in (*got, posted, own, refused)] == [200, 200, 200, 200, 200, 401]
    assert gateway.upstream.last.body == b"y" * 200_000


async def test_the_upstream_is_told_of_https(gateway: GatewayUnderTest, authority: Authority) -> None:
    async with secured(gateway, authority.client()) as wire:
        for method in ("GET", "POST"):
            await wire.ask(request("/public/x", method=method, body=b"hello" if method == "POST" else b""))

    assert [received.all("x-forwarded-proto") for received in gateway.upstream.received] == [["https"]] * 2
    assert [received.all("x-forwarded-port") for received in gateway.upstream.received] == [["443"]] * 2
    assert [received.all("x-forwarded-for") for received in gateway.upstream.received] == [["127.0.0.1"]] * 2


async def test_a_client_that_knows_nothing_of_us_is_served(gateway: GatewayUnderTest, authority: Authority) -> None:
    def ask() -> tuple[int, bytes]:
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=authority.client())
        )
        with opener.open(f"https://localhost:{gateway.port}/public/x", timeout=10) as answer:
            return answer.status, answer.read()

    assert await asyncio.to_thread(ask) == (200, b"ok")


async def test_a_long_answer_arrives_whole_however_slowly_it_is_read(
    gateway: GatewayUnderTest, authority: Authority
) -> None:
    body = bytes(range(256)) * 16384

    async def long(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    gateway.upstream.respond = long
    async with secured(gateway, authority.client()) as wire:
        await wire.send(request("/public/x") + request("/public/next"))
        await asyncio.sleep(0.2)
        first, second = await wire.reply(), await wire.reply()

    assert first.body == second.body == body


async def test_an_answer_after_which_the_connection_closes_is_read_whole(
    gateway: GatewayUnderTest, authority: Authority
) -> None:
    async with secured(gateway, authority.client()) as wire:
        refused = await wire.ask(b"GET /public/../x HTTP/1.1\r\nHost: app.example.test\r\nConnection: close\r\n\r\n")
        assert await wire.closed()
    async with secured(gateway, authority.client()) as wire:
        await wire.send(b"garbage\r\n\r\n" + b"x" * 100_000)
        garbage = await wire.reply()
        assert await wire.closed()

    assert (refused.status, garbage.status) == (400, 400)


async def test_a_last_answer_is_not_cut_though_its_client_is_slow(
    gateway: GatewayUnderTest, authority: Authority
) -> None:
    body = bytes(range(256)) * 65536

    async def long(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    gateway.upstream.respond = long
    async with secured(gateway, authority.client(), limit=2**12) as wire:
        await wire.send(request("/public/x", "Connection: close"))
        await asyncio.sleep(1.5)
        reply = await wire.reply()

        assert await wire.closed()
    assert reply.body == body


async def test_a_drain_says_goodbye_to_who_is_idle(database_url: str, fast_lane: bool, authority: Authority) -> None:
    changes = over_tls(authority) | {"fast_lane": fast_lane}
    async with AsyncExitStack() as stack:
        async with gateway_under_test(database_url, **changes) as gateway:
            wire = await stack.enter_async_context(secured(gateway, authority.client()))
            reply = await wire.ask(request("/public/x"))
            silent = await stack.enter_async_context(secured(gateway, authority.client()))
        assert await wire.closed()
        assert await silent.closed()

    assert reply.status == 200


async def test_a_client_that_nobody_accepted_yet_when_a_drain_begins_is_answered(
    database_url: str, fast_lane: bool, authority: Authority
) -> None:
    async with AsyncExitStack() as stack:
        changes = over_tls(authority) | {"fast_lane": fast_lane}
        gateway = await stack.enter_async_context(gateway_under_test(database_url, **changes))
        with socket.socket() as client:

            async def knock_and_end() -> None:  # in one turn of the event loop, so that nobody can be accepted between
                client.connect(("127.0.0.1", gateway.port))
                await stack.aclose()

            end = asyncio.create_task(knock_and_end())
            await asyncio.sleep(0)
            client.setblocking(False)
            reader, writer = await asyncio.open_connection(
                sock=client, ssl=authority.client(), server_hostname="127.0.0.1"
            )
            reply = await Wire(reader, writer).ask(request("/users/current"))
            writer.close()

            assert reply.status == 401
            await asyncio.wait_for(end, 10)


async def test_protocols_are_negotiated_and_old_ones_refused(gateway: GatewayUnderTest, authority: Authority) -> None:
    modern, old = authority.client(), authority.client()
    modern.set_alpn_protocols(["h2", "http/1.1"])
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    async with secured(gateway, modern) as wire:
        chosen = wire.writer.get_extra_info("ssl_object")

        assert chosen.selected_alpn_protocol() == "http/1.1"
        assert chosen.version() == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        async with secured(gateway, old):
            pass


async def test_plain_http_to_the_tls_port_reaches_nobody(gateway: GatewayUnderTest, authority: Authority) -> None:
    async with gateway.wire() as wire:
        await wire.send(request("/public/x"))
        answer = await wire.rest()
    async with secured(gateway, authority.client()) as wire:
        after = await wire.ask(request("/public/y"))

    assert b"HTTP/1.1" not in answer
    assert after.status == 200
    assert [received.target for received in gateway.upstream.received] == [b"/public/y"]


async def test_d01_a_tls_handshake_that_stalls_is_cut_and_harms_nobody(
    database_url: str, fast_lane: bool, authority: Authority
) -> None:
    changes = over_tls(authority) | {"fast_lane": fast_lane, "limits": {"head_timeout": 0.3}}
    async with gateway_under_test(database_url, **changes) as gateway, gateway.wire() as stalled:
        await stalled.send(b"\x16\x03\x01")
        async with secured(gateway, authority.client()) as wire:
            served = await wire.ask(request("/public/x"))

        assert served.status == 200
        assert await stalled.rest() == b""


async def test_a_client_that_leaves_within_its_handshake_harms_nobody(
    gateway: GatewayUnderTest, authority: Authority
) -> None:
    for _ in range(20):
        with socket.socket() as leaving:
            leaving.setblocking(False)
            leaving.connect_ex(("127.0.0.1", gateway.port))
            await asyncio.sleep(0)
    async with secured(gateway, authority.client()) as wire:
        reply = await wire.ask(request("/public/x"))

    assert reply.status == 200


async def test_the_public_url_follows_the_listener(database_url: str, authority: Authority) -> None:
    changes = over_tls(authority) | {"public_url": None}
    async with gateway_under_test(database_url, **changes) as gateway:
        origin = f"https://127.0.0.1:{gateway.port}"
        async with secured(gateway, authority.client()) as wire:
            taken = await wire.ask(_settings_change(origin))
            refused = await wire.ask(_settings_change(origin.replace("https:", "http:")))

    assert taken.status == 200
    assert (refused.status, refused.code) == (403, "cross_site")


def _settings_change(origin: str) -> bytes:
    token = mint_token()
    lines = [f"Cookie: __session={token}; __client_uat=1", f"Origin: {origin}", "Content-Type: application/json"]
    return request("/users/current/settings", *lines, method="PATCH", body=b'{"a": 1}')


async def test_a_certificate_that_cannot_be_used_ends_the_start(
    database_url: str, tmp_path: Path, authority: Authority
) -> None:
    one, other = authority.issue(), authority.issue()
    for certificate, key, why in (
        (tmp_path / "missing.pem", one.key, "no such file"),
        (one.certificate, other.key, "key values mismatch"),
        (one.key, one.key, "not a PEM file"),
    ):
        tls = {"certificate": str(certificate), "key": str(key)}
        with pytest.raises(OSError, match=rf"tls\.certificate and tls\.key cannot be used: {why}"):
            async with gateway_under_test(database_url, tls=tls):
                pass
