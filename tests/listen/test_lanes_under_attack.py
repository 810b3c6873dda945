"""What hostile clients did to the lanes once, and must not do again. Raw bytes on sockets, over a real gateway."""

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.exchanges import split
from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.upstream import OK, Received, answering, until
from tests.support.wire import Reply, bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {
    "upstreams": {"app": {"response_timeout": 3}},
    "clerk": {"jwks": {"cooldown": 0.001}},
}
GET = request("/public/get")
POST = request("/public/post", "Content-Length: 0", method="POST")
LAST = request("/public/last", "Connection: close")
BLANK = b"\r\n"


def targets(gateway: GatewayUnderTest) -> list[bytes]:
    return [received.target for received in gateway.upstream.received]


async def deliver(gateway: GatewayUnderTest, pieces: list[bytes], gap: float = 0.02) -> list[int]:
    """Send pieces, each a read of its own, then `LAST`; gives the statuses up to the end of the connection."""
    replies: list[Reply] = []
    async with gateway.wire() as wire:
        for piece in (*pieces, LAST):
            await wire.send(piece)
            await asyncio.sleep(gap)
        while not replies or replies[-1].get("connection") != "close":
            replies.append(await wire.reply())

        assert await wire.closed()
    return [reply.status for reply in replies]


@pytest.mark.parametrize("first", [GET, POST], ids=["get", "post_of_no_length"])
@pytest.mark.parametrize(
    "blanks",
    [
        [BLANK],
        [BLANK * 2],
        [BLANK * 4],
        [BLANK, BLANK],
        [BLANK * 2, BLANK * 2],
        [b"\r", b"\n", b"\r", b"\n"],
        [BLANK + b"\r", b"\n" + BLANK],
    ],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at_once", "later"])
async def test_blank_lines_after_a_request_do_not_repeat_it(
    gateway: GatewayUnderTest, first: bytes, blanks: list[bytes], at_once: bool
) -> None:
    pieces = [first + blanks[0], *blanks[1:]] if at_once else [first, *blanks]

    statuses = await deliver(gateway, pieces)

    assert statuses == [200, 200]
    assert targets(gateway) == [first.split(b" ")[1], b"/public/last"]


@pytest.mark.parametrize(
    "pieces", [[BLANK * 2 + GET], [BLANK * 2, GET], [BLANK, BLANK + GET], [b"\r", b"\n\r", b"\n" + GET]]
)
async def test_blank_lines_before_the_first_request_are_ignored(gateway: GatewayUnderTest, pieces: list[bytes]) -> None:
    statuses = await deliver(gateway, pieces)

    assert statuses == [200, 200]
    assert targets(gateway) == [b"/public/get", b"/public/last"]


def numbered(kinds: list[str]) -> list[tuple[bytes, int, bytes]]:
    """Requests of these kinds: what is sent, its status, and its target when it goes up."""
    made = []
    for number, kind in enumerate(kinds):
        target = f"/public/{number}"
        raw, status = {
            "get": (request(target), 200),
            "no_length": (request(target, "Content-Length: 0", method="POST"), 200),
            "body": (request(target, method="POST", body=b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"), 200),
            "refused": (request(f"/private/{number}"), 401),
            "own": (request("/users/current"), 401),
        }[kind]
        made.append((raw, status, target.encode() if status == 200 else b""))
    return made


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["get", "get", "no_length", "body", "refused", "own"]), st.integers(0, 3)),
        min_size=1,
        max_size=8,
    ),
    st.lists(st.integers(0, 2000), max_size=8),
)
async def test_any_split_of_any_requests_goes_up_once_and_in_order(
    module_gateway: GatewayUnderTest, chosen: list[tuple[str, int]], cuts: list[int]
) -> None:
    made = numbered([kind for kind, _ in chosen])
    stream = b"".join(BLANK * blanks + raw for (raw, _, _), (_, blanks) in zip(made, chosen, strict=True))
    module_gateway.upstream.received.clear()

    statuses = await deliver(module_gateway, split(stream, cuts), gap=0)

    assert statuses == [*(status for _, status, _ in made), 200]
    assert targets(module_gateway) == [*(target for _, _, target in made if target), b"/public/last"]


GARBAGE = b"GET /public/bad HTTP/1.1\r\nHost: a\r\nX bad: b\r\n\r\n"


@pytest.mark.parametrize("first", [GET, POST, request("/public/body", method="POST", body=b"\r\n\r\nhello")])
@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 500), max_size=3))
async def test_what_came_before_bytes_that_are_no_request_is_answered(
    module_gateway: GatewayUnderTest, first: bytes, cuts: list[int]
) -> None:
    module_gateway.upstream.received.clear()
    async with module_gateway.wire() as wire:
        for piece in split(first + GET + GARBAGE + GET, cuts):
            await wire.send(piece)
            await asyncio.sleep(0)
        replies = [await wire.reply() for _ in range(3)]

        assert await wire.closed()
    assert [reply.status for reply in replies] == [200, 200, 400]
    assert targets(module_gateway) == [first.split(b" ")[1], b"/public/get"]


async def quiet_socket(gateway: GatewayUnderTest) -> socket.socket:
    """A connection whose owner decides when it reads."""
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", gateway.port))
    return connection


async def test_a_client_slow_to_the_last_leaves_no_upstream_connection_unread(gateway: GatewayUnderTest) -> None:
    loop, part = asyncio.get_running_loop(), bytes(200_000)
    statuses = []
    for parts in range(2, 28, 2):  # where the client pauses the answer depends on what the kernel buffers

        async def in_parts(
            received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, parts: int = parts
        ) -> None:
            if received.target != b"/public/large":
                writer.write(OK)
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (parts * len(part)))
            for _ in range(parts):
                await asyncio.sleep(0.002)
                writer.write(part)

        gateway.upstream.respond = in_parts
        with await quiet_socket(gateway) as slow:
            await loop.sock_sendall(slow, request("/public/large"))
            await asyncio.sleep(0.05 + parts * 0.004)
            left = parts * len(part)
            async with asyncio.timeout(10):
                while left > 0:
                    left -= len(await loop.sock_recv(slow, 256 * 1024))
            await asyncio.sleep(0.02)
            statuses.append((await gateway.get("/public/next")).status)

    assert statuses == [200] * 13


MIB = 1 << 20
FLOOD = 64 * MIB
BOUND = 32 * MIB  # what the kernel may hold in the sockets of the connection is most of it


@pytest.mark.parametrize("target", ["/public/x", "/private", "/none/..;/"], ids=["forwarded", "refused", "malformed"])
async def test_a_client_that_pipelines_without_reading_is_stopped(gateway: GatewayUnderTest, target: str) -> None:
    gateway.upstream.respond = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + bytes(2000))
    raw = request(target)
    blob, sent = raw * (MIB // 4 // len(raw)), 0

    async def flood() -> None:
        nonlocal sent
        while sent < FLOOD:
            sent += await _sent(client, blob)

    with await quiet_socket(gateway) as client:
        flooding = asyncio.create_task(flood())
        before = -1
        async with asyncio.timeout(60):
            while sent != before:
                before = sent
                await asyncio.sleep(1)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)

    assert 0 < before < BOUND


async def _sent(connection: socket.socket, data: bytes) -> int:
    try:
        await asyncio.get_running_loop().sock_sendall(connection, data)
    except ConnectionError:
        await asyncio.sleep(3600)  # told to go: no more than this was taken
    return len(data)


async def test_a_client_that_pipelines_and_reads_gets_every_answer(gateway: GatewayUnderTest) -> None:
    kinds = [request("/public/x"), request("/private"), request("/private"), request("/public/x")]
    async with gateway.wire() as wire:
        sending = asyncio.create_task(wire.send(b"".join(kinds) * 750 + LAST))
        statuses = [(await wire.reply()).status for _ in range(3001)]
        await sending

        assert await wire.closed()
    assert statuses == [200, 401, 401, 200] * 750 + [200]
    assert len(gateway.upstream.received) == 1501


async def test_requests_behind_a_caller_who_is_refused_late_are_answered(gateway: GatewayUnderTest) -> None:
    unknown = bearer(mint_token(key="other", kid=f"ins_{id(gateway)}"))
    behind = [request(f"/private/{number}", "X-Pad: " + "p" * 3000) for number in range(40)]
    fetches = gateway.jwks.fetches
    gateway.jwks.gate.clear()
    try:
        async with gateway.wire() as wire:
            await wire.send(request("/x", unknown))
            await until(lambda: gateway.jwks.fetches > fetches)
            for raw in behind:  # 120 kB: more than a lane takes while a request is under way
                wire.writer.write(raw)
                await asyncio.sleep(0.002)
            gateway.jwks.gate.set()
            statuses = [(await wire.reply()).status for _ in range(41)]
            last = await wire.ask(LAST)
    finally:
        gateway.jwks.gate.set()

    assert statuses == [401] * 41
    assert last.status == 200


async def test_one_client_s_burst_of_refusals_does_not_go_before_everybody_else(gateway: GatewayUnderTest) -> None:
    refused = b"GET /p HTTP/1.1\r\nHost: a\r\n\r\n"
    with await quiet_socket(gateway) as burst:
        async with gateway.wire() as other:
            await other.ask(GET)
            assert burst.send(refused * 2000) == 2000 * len(refused)
            reply = await other.ask(request("/private"))
            answered = received_so_far(burst).count(b"HTTP/1.1 401 ")

    assert reply.status == 401
    assert answered < 1000


def received_so_far(connection: socket.socket) -> bytes:
    """What has arrived, without giving the gateway a turn to send more."""
    data = b""
    try:
        while piece := connection.recv(MIB):
            data += piece
    except BlockingIOError:
        pass
    return data
