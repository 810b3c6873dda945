"""Upstreams over TLS: who is believed, and that nothing is said to anybody else."""

import asyncio
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.gateway import gateway_under_test
from tests.support.upstream import Received, answering_and_closing, recording_upstream
from tests.support.wire import request


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def believing(authority: Authority, url: str, **more: str) -> dict[str, Any]:
    return {"app": {"url": url, "ca_file": str(authority.ca_file), **more}}


async def test_an_https_upstream_of_a_known_authority_serves(
    database_url: str, fast_lane: bool, authority: Authority
) -> None:
    async with recording_upstream(tls=authority.issue().server()) as server:
        changes = believing(authority, server.url)
        async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=changes) as gateway:
            async with gateway.wire() as wire:
                replies = [await wire.ask(request("/public/x")) for _ in range(3)]
            posted = await gateway.ask(request("/public/x", method="POST", body=b"x" * 300_000))

    assert [(reply.status, reply.body) for reply in replies] == [(200, b"ok")] * 3
    assert (posted.status, server.last.body) == (200, b"x" * 300_000)
    assert server.connections == 1


async def test_a_long_answer_over_tls_arrives_whole(database_url: str, fast_lane: bool, authority: Authority) -> None:
    body = bytes(range(256)) * 8192

    async def long(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with recording_upstream(tls=authority.issue().server()) as server:
        server.respond = long
        changes = believing(authority, server.url)
        async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=changes) as gateway:
            reply = await gateway.get("/public/x")

    assert reply.body == body


async def test_the_certificate_may_hold_another_name_when_the_settings_say_so(
    database_url: str, fast_lane: bool, authority: Authority
) -> None:
    async with recording_upstream(tls=authority.issue("app.internal").server()) as server:
        changes = believing(authority, server.url, server_name="app.internal")
        async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=changes) as gateway:
            reply = await gateway.get("/public/x")

    assert reply.status == 200


@pytest.mark.parametrize(
    ("names", "expired", "known", "more"),
    [
        (["app.example.com", "127.0.0.2"], False, True, {}),
        ([], False, True, {"server_name": "app.internal"}),
        ([], True, True, {}),
        ([], False, False, {}),
    ],
    ids=["wrong_name", "not_the_name_demanded", "expired", "unknown_authority"],
)
async def test_an_upstream_that_is_not_verified_is_502_and_is_sent_nothing(
    database_url: str,
    fast_lane: bool,
    tmp_path: Path,
    authority: Authority,
    names: list[str],
    expired: bool,
    known: bool,
    more: dict[str, str],
) -> None:
    (tmp_path / "other").mkdir()
    signing = authority if known else Authority(tmp_path / "other")
    async with recording_upstream(tls=signing.issue(*names, expired=expired).server()) as server:
        changes = believing(authority, server.url, **more)
        async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=changes) as gateway:
            reply = await gateway.ask(request("/public/x", method="POST", body=b"a secret"))
            failures = await gateway.metric("gateway_upstream_errors_total", reason="tls_failed")

    assert (reply.status, reply.code) == (502, "upstream_unreachable")
    assert server.received == []
    assert failures == 1


async def test_the_systems_authorities_do_not_know_that_of_the_tests(database_url: str, authority: Authority) -> None:
    async with (
        recording_upstream(tls=authority.issue().server()) as server,
        gateway_under_test(database_url, upstreams={"app": {"url": server.url}}) as gateway,
    ):
        reply = await gateway.get("/public/x")

    assert reply.status == 502
    assert server.received == []


async def test_an_upstream_of_old_tls_is_502(database_url: str, authority: Authority) -> None:
    context = authority.issue().server()
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    async with (
        recording_upstream(tls=context) as server,
        gateway_under_test(database_url, upstreams=believing(authority, server.url)) as gateway,
    ):
        reply = await gateway.get("/public/x")

    assert reply.status == 502
    assert server.received == []


async def test_an_upstream_without_tls_behind_an_https_address_is_502_and_is_sent_nothing(
    database_url: str, fast_lane: bool, authority: Authority
) -> None:
    heard = bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(65536))
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    changes = believing(authority, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=changes) as gateway:
        reply = await gateway.get("/public/x")
    server.close()

    assert (reply.status, reply.code) == (502, "upstream_unreachable")
    assert b"HTTP/" not in heard


async def test_a_tls_handshake_that_stalls_ends_at_the_deadline_of_the_dial(
    database_url: str, authority: Authority
) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass
        left.set()
        writer.close()

    left = asyncio.Event()
    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    changes: dict[str, Any] = believing(authority, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    changes["app"]["connect_timeout"] = 0.3
    async with gateway_under_test(database_url, upstreams=changes) as gateway:
        reply = await gateway.get("/public/x")
        async with asyncio.timeout(5):
            await left.wait()
    server.close()

    assert (reply.status, reply.code) == (504, "upstream_timeout")


async def test_one_address_that_is_not_verified_leaves_the_work_to_the_other(
    database_url: str, fast_lane: bool, authority: Authority
) -> None:
    async with (
        recording_upstream(tls=authority.issue().server()) as good,
        recording_upstream(tls=authority.issue(expired=True).server()) as bad,
    ):
        changes = {"app": {"url": None, "addresses": [bad.url, good.url], "ca_file": str(authority.ca_file)}}
        async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=changes) as gateway:
            replies = [await gateway.get("/public/x") for _ in range(4)]

    assert [reply.status for reply in replies] == [200] * 4
    assert (len(good.received), len(bad.received)) == (4, 0)


UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it"


async def test_an_answer_that_ends_with_its_tls_connection_is_whole(
    database_url: str, fast_lane: bool, authority: Authority
) -> None:
    async with recording_upstream(tls=authority.issue().server()) as server:
        server.respond = answering_and_closing(UNTIL_CLOSE)
        changes = believing(authority, server.url)
        async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=changes) as gateway:
            reply = await gateway.get("/public/x")

    assert reply.body == b"all of it"


async def test_an_answer_whose_tcp_connection_ends_beneath_tls_is_passed_on_as_cut(
    database_url: str, fast_lane: bool, authority: Authority
) -> None:
    async def cut(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(UNTIL_CLOSE)
        await writer.drain()
        await asyncio.sleep(0.05)
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as beneath:
            beneath.shutdown(socket.SHUT_RDWR)  # TCP's end, without a word of TLS
        await reader.read()
        return False

    async with recording_upstream(tls=authority.issue().server()) as server:
        server.respond = cut
        changes = believing(authority, server.url)
        async with (
            gateway_under_test(database_url, fast_lane=fast_lane, upstreams=changes) as gateway,
            gateway.wire() as wire,
        ):
            await wire.send(request("/public/x"))
            answer = await wire.rest()

    assert b"all of it" in answer
    assert not answer.endswith(b"0\r\n\r\n")


async def test_a_file_of_authorities_that_cannot_be_read_ends_the_start(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_bytes(b"")
    for name, why in (("missing.pem", "no such file"), ("empty.pem", "no certificate")):
        changes = {"app": {"url": "https://127.0.0.1:1", "ca_file": str(tmp_path / name)}}
        with pytest.raises(OSError, match=rf"upstreams\.app\.ca_file cannot be used: {why}"):
            async with gateway_under_test(database_url, upstreams=changes):
                pass
