"""Programs that call the gateway with the HTTP clients people have: Python's own, aiohttp's, Node's and curl."""

import asyncio
import hashlib
import http.client
import json
import os
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, TraceConfig, TraceConnectionCreateEndParams

from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.programs import program_named
from tests.support.upstream import Received

pytestmark = pytest.mark.asyncio(loop_scope="module")
BODY = os.urandom(3_000_000)
DEADLINE_S = 60.0


def signed_in() -> dict[str, str]:
    return {"Authorization": f"Bearer {mint_token()}"}


def pieces(size: int = 70_001) -> Iterator[bytes]:
    for start in range(0, len(BODY), size):
        yield BODY[start : start + size]


def received_at(gateway: GatewayUnderTest, target: bytes) -> Received:
    (received,) = (one for one in gateway.upstream.received if one.target == target)
    return received


async def test_aiohttp_keeps_one_connection_and_sends_bodies_of_both_framings(gateway: GatewayUnderTest) -> None:
    async def in_pieces() -> AsyncIterator[bytes]:
        for piece in pieces():
            yield piece

    dialled: list[TraceConnectionCreateEndParams] = []
    trace = TraceConfig()

    async def note(_: object, __: object, connection: TraceConnectionCreateEndParams) -> None:
        dialled.append(connection)

    trace.on_connection_create_end.append(note)
    url = f"http://127.0.0.1:{gateway.port}"
    async with ClientSession(trace_configs=[trace], headers=signed_in()) as session:
        for _ in range(20):
            async with session.get(f"{url}/get") as response:
                assert response.status == 200
        async with session.post(f"{url}/fixed", json={"a": 1}) as fixed:
            assert fixed.status == 200
        async with session.post(f"{url}/streamed", data=in_pieces()) as streamed:
            assert streamed.status == 200

    assert len(dialled) == 1
    assert json.loads(received_at(gateway, b"/fixed").body) == {"a": 1}
    assert received_at(gateway, b"/streamed").body == BODY


async def test_http_client_keeps_its_socket_through_answers_and_refusals(gateway: GatewayUnderTest) -> None:
    def talk() -> list[tuple[int, bool]]:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE_S)
        heard: list[tuple[int, bool]] = []
        for method, headers, body in (
            ("GET", signed_in(), None),
            ("GET", {}, None),
            ("HEAD", signed_in(), None),
            ("POST", signed_in(), BODY),
            ("GET", signed_in(), None),
            ("POST", signed_in(), pieces()),
        ):
            connection.request(method, f"/{len(heard)}", body, headers)
            answer = connection.getresponse()
            answer.read()
            heard.append((answer.status, answer.will_close))
        connection.close()
        return heard

    heard = await asyncio.to_thread(talk)

    assert [status for status, _ in heard] == [200, 401, 200, 200, 200, 200]
    # A chunked body ends its connection (`gateway/edge/arrival.py`); nothing else does.
    assert [closes for _, closes in heard] == [False] * 5 + [True]
    assert received_at(gateway, b"/3").body == BODY
    assert received_at(gateway, b"/5").body == BODY


async def test_refusal_reaches_a_client_that_is_still_sending(gateway: GatewayUnderTest) -> None:
    def talk() -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE_S)
        try:
            connection.request("POST", "/large", BODY[:500_000])
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())["code"]
        finally:
            connection.close()

    refused = await asyncio.to_thread(talk)

    assert refused == (401, "credential_missing")


async def test_urllib_gets_and_posts(gateway: GatewayUnderTest) -> None:
    def ask(target: str, data: bytes | None = None) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{gateway.port}{target}", data, signed_in())
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
            response.read()
            return int(response.status)

    statuses = [await asyncio.to_thread(ask, "/get"), await asyncio.to_thread(ask, "/post", b"a=1")]

    assert statuses == [200, 200]
    assert received_at(gateway, b"/post").body == b"a=1"


async def run(*command: str) -> str:
    """Run a program to its end and give what it wrote."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        written, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    return written.decode()


async def test_node_keeps_connections_and_sends_bodies_of_both_framings(gateway: GatewayUnderTest) -> None:
    async def digest(received: Received, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = hashlib.sha256(received.body).hexdigest().encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))

    gateway.upstream.respond = digest
    script = Path(__file__).with_name("node_client.mjs")
    url = f"http://127.0.0.1:{gateway.port}"
    said: dict[str, Any] = json.loads(await run(program_named("node"), str(script), url, mint_token()))

    assert [answer["status"] for answer in said["kept"]] == [200] * 20
    assert [answer["reused"] for answer in said["kept"]] == [False] + [True] * 19
    assert received_at(gateway, b"/fetch?a=%C3%A9").one("x-actor-id").startswith("usr_")
    assert said["get"]["status"] == 200
    assert said["many"] == [200] * 100
    assert said["fixed"] == {"status": 200, "body": said["sent"]}
    assert said["streamed"] == {"status": 200, "body": said["sent"]}
    assert said["refused"] == {"status": 401, "code": "credential_missing"}


async def test_curl_waits_for_100_before_a_large_body_and_keeps_its_connection(
    gateway: GatewayUnderTest, tmp_path: Path
) -> None:
    file = tmp_path / "body.bin"
    file.write_bytes(BODY)
    url = f"http://127.0.0.1:{gateway.port}"
    token = next(iter(signed_in().values()))
    posting = ["-H", f"Authorization: {token}", "-H", "Expect: 100-continue", "--data-binary", f"@{file}"]
    told = ["-sS", "-o", os.devnull, "-w", "%{http_code} %{num_connects}\\n", "--max-time", str(DEADLINE_S)]
    written = await run(program_named("curl"), *told, *posting, f"{url}/one", "--next", *told, *posting, f"{url}/two")

    assert written.splitlines() == ["200 1", "200 0"]
    assert received_at(gateway, b"/one").body == BODY
    assert received_at(gateway, b"/two").body == BODY
