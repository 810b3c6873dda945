"""W: websocket handshakes, judged on both sides before a byte is tunnelled."""

import pytest

from tests.support.gateway import ORIGIN, GatewayUnderTest, mint_token
from tests.support.upstream import answering, answering_and_closing
from tests.support.websockets import ACCEPT, ASKING, KEY, VERSION, handshake, switching, then_echo
from tests.support.wire import Wire, bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

EARLY = b"GET /public/smuggled HTTP/1.1\r\nHost: app.example.test\r\n\r\n"
COOKIES = "Cookie: __session={}; __client_uat=1"


async def upgraded(wire: Wire, raw: bytes) -> bytes:
    """Send a handshake and read the 101, strictly up to its blank line."""
    await wire.send(raw)
    head = await wire.reader.readuntil(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 101 "), head
    return head


@pytest.mark.parametrize(
    ("lines", "error"),
    [((), None), ((bearer("aaaa.bbbb.cccc"),), "invalid_token"), ((bearer(mint_token(exp=1)),), "invalid_token")],
)
async def test_w01_a_handshake_without_a_good_credential_is_refused_before_anybody_is_dialled(
    gateway: GatewayUnderTest, lines: tuple[str, ...], error: str | None
) -> None:
    dialled = gateway.upstream.connections
    async with gateway.wire() as wire:
        reply = await wire.ask(handshake("/ws", *lines))

        assert reply.status == 401
        assert reply.challenge.error == error
        assert await wire.closed()
    assert gateway.upstream.connections == dialled


async def test_w01_a_handshake_with_a_good_credential_goes_up_with_the_identity_alone(
    gateway: GatewayUnderTest,
) -> None:
    gateway.upstream.respond_early = then_echo(switching("X-Actor-Id: usr_forged", "X-App: 1"))
    async with gateway.wire() as wire:
        head = await upgraded(wire, handshake("/ws?a=1", bearer(mint_token()), "X-Actor-Id: spoofed"))
        await wire.send(b"\x81\x85\x00\x00\x00\x00hello")

        assert await wire.reader.readexactly(11) == b"\x81\x85\x00\x00\x00\x00hello"
    seen = gateway.upstream.last
    assert seen.target == b"/ws?a=1"
    assert seen.one("x-actor-id").startswith("usr_")
    assert seen.all("authorization") == []
    assert (seen.one("connection"), seen.one("upgrade")) == ("Upgrade", "websocket")
    assert (seen.one("sec-websocket-key"), seen.one("sec-websocket-version")) == (KEY, "13")
    assert b"usr_forged" not in head
    assert b"X-App: 1\r\n" in head
    assert f"Sec-WebSocket-Accept: {ACCEPT}".encode() in head


@pytest.mark.parametrize(
    "origin",
    [
        "Origin: https://evil.example",
        "Origin: null",
        f"Origin: {ORIGIN}.evil.example",
        f"Origin: {ORIGIN.replace('https', 'http')}",
        "X-Origin: none",
    ],
)
async def test_w02_a_cookie_from_elsewhere_opens_no_websocket(gateway: GatewayUnderTest, origin: str) -> None:
    dialled = gateway.upstream.connections
    async with gateway.wire() as wire:
        reply = await wire.ask(handshake("/ws", COOKIES.format(mint_token()), origin))

        assert (reply.status, reply.code) == (403, "cross_site")
        assert await wire.closed()
    assert gateway.upstream.connections == dialled


@pytest.mark.parametrize("lines", [(COOKIES, f"Origin: {ORIGIN}"), ("{}", "Origin: https://evil.example")])
async def test_w02_a_cookie_from_home_and_a_bearer_from_anywhere_open_one(
    gateway: GatewayUnderTest, lines: tuple[str, str]
) -> None:
    gateway.upstream.respond_early = then_echo(switching())
    credential = lines[0].format(mint_token() if "Cookie" in lines[0] else bearer(mint_token()))
    async with gateway.wire() as wire:
        await upgraded(wire, handshake("/ws", credential, lines[1]))

    assert gateway.upstream.last.one("x-actor-id").startswith("usr_")
    assert all("__session" not in value for value in gateway.upstream.last.all("cookie"))


KEY_LINE = f"Sec-WebSocket-Key: {KEY}"
BROKEN = {
    "no_key": (*ASKING, VERSION),
    "short_key": (*ASKING, VERSION, "Sec-WebSocket-Key: AAAA"),
    "long_key": (*ASKING, VERSION, f"Sec-WebSocket-Key: {'A' * 24}"),
    "no_base64": (*ASKING, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!Q=="),
    "key_twice": (*ASKING, VERSION, KEY_LINE, KEY_LINE),
    "odd_key": (*ASKING, VERSION, KEY_LINE, KEY_LINE.replace("-", "_")),
    "several_protocols": ("Connection: Upgrade", "Upgrade: websocket, h2c", VERSION, KEY_LINE),
    "length": (*ASKING, VERSION, KEY_LINE, "Content-Length: 0"),
    "body": (*ASKING, VERSION, KEY_LINE, "Content-Length: 4"),
    "chunked": (*ASKING, VERSION, KEY_LINE, "Transfer-Encoding: chunked"),
    "nominated": ("Connection: Upgrade, Sec-WebSocket-Key", "Upgrade: websocket", VERSION, KEY_LINE),
}


async def refused(gateway: GatewayUnderTest, raw: bytes, status: int, code: str) -> None:
    dialled = gateway.upstream.connections
    async with gateway.wire() as wire:
        await wire.send(raw + EARLY)
        reply = await wire.reply()

        assert (reply.status, reply.code) == (status, code)
        assert await wire.closed()
    assert gateway.upstream.connections == dialled


@pytest.mark.parametrize("case", BROKEN)
async def test_w03_a_broken_handshake_is_refused_here_and_the_connection_ends(
    gateway: GatewayUnderTest, case: str
) -> None:
    body = {"body": b"body", "chunked": b"0\r\n\r\n"}.get(case, b"")
    await refused(gateway, request("/public/ws", *BROKEN[case]) + body, 400, "handshake_malformed")


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "OPTIONS"])
async def test_w03_only_get_asks_for_a_websocket(gateway: GatewayUnderTest, method: str) -> None:
    dialled = gateway.upstream.connections
    async with gateway.wire() as wire:
        reply = await wire.ask(handshake(method=method))

        assert reply.status == 400
        assert await wire.closed()
    assert gateway.upstream.connections == dialled


async def test_w03_http_1_0_asks_for_no_websocket(gateway: GatewayUnderTest) -> None:
    await refused(gateway, handshake().replace(b"HTTP/1.1", b"HTTP/1.0"), 400, "handshake_malformed")


@pytest.mark.parametrize("versions", [("1337",), ("12",), (), ("13", "13"), ("13, 8",)])
async def test_w03_another_version_is_told_which_one_is_spoken(
    gateway: GatewayUnderTest, versions: tuple[str, ...]
) -> None:
    lines = [f"Sec-WebSocket-Version: {version}" for version in versions]
    async with gateway.wire() as wire:
        reply = await wire.ask(request("/public/ws", *ASKING, *lines, KEY_LINE))

        assert (reply.status, reply.code) == (426, "websocket_version_unsupported")
        assert reply.get("sec-websocket-version") == "13"
        assert reply.get("upgrade") == "websocket"
        assert {value.lower() for value in reply.all("connection")} == {"upgrade", "close"}
        assert await wire.closed()


UNSWITCHED = {
    "success": b"HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
    "no_content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "wrong_accept": switching(accept="AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    "two_accepts": switching(f"Sec-WebSocket-Accept: {ACCEPT}"),
    "no_accept": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "other_protocol": switching().replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    "no_upgrade": switching().replace(b"Upgrade: websocket\r\n", b""),
    "no_connection": switching().replace(b"Connection: Upgrade\r\n", b""),
    "http_1_0": switching().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "unoffered_subprotocol": switching("Sec-WebSocket-Protocol: chat"),
    "unoffered_extension": switching("Sec-WebSocket-Extensions: permessage-deflate"),
    "garbage": b"\x81\x05hello",
}


@pytest.mark.parametrize("case", UNSWITCHED)
async def test_w04_an_answer_that_did_not_switch_opens_no_tunnel(gateway: GatewayUnderTest, case: str) -> None:
    gateway.upstream.respond_early = answering_and_closing(UNSWITCHED[case])
    await_open = await gateway.metric("gateway_websockets_open")
    async with gateway.wire() as wire:
        await wire.send(handshake() + EARLY)
        reply = await wire.reply()

        assert (reply.status, reply.code) == (502, "upstream_malformed")
        assert await wire.closed()
    assert len(gateway.upstream.received) == 1
    assert await gateway.metric("gateway_websockets_open") == await_open
    assert await gateway.metric("gateway_upstream_connections", state="upgraded") == 0


async def test_w04_a_switch_nobody_asked_for_is_refused(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond = answering(switching())

    reply = await gateway.get("/public/x")

    assert (reply.status, reply.code) == (502, "upstream_malformed")


@pytest.mark.parametrize("status", [b"302 Found", b"401 Unauthorized", b"426 Upgrade Required", b"503 Busy"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_w04_another_final_answer_is_relayed_and_the_connection_ends(
    gateway: GatewayUnderTest, status: bytes, framing: str
) -> None:
    body = {
        "length": b"Content-Length: 4\r\n\r\nbody",
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        "close": b"\r\nbody",
    }[framing]
    raw = b"HTTP/1.1 " + status + b"\r\nLocation: /elsewhere\r\n" + body
    gateway.upstream.respond_early = answering_and_closing(raw)
    async with gateway.wire() as wire:
        await wire.send(handshake() + EARLY)
        reply = await wire.reply()

        assert (reply.status, reply.body, reply.get("location")) == (int(status[:3]), b"body", "/elsewhere")
        assert reply.get("connection") == "close"
        assert await wire.closed()
    assert len(gateway.upstream.received) == 1


@pytest.mark.parametrize("size", [0, 200_000])
async def test_w04_bytes_before_the_101_are_tunnelled_and_never_read_as_http(
    gateway: GatewayUnderTest, size: int
) -> None:
    gateway.upstream.respond_early = then_echo(switching())
    async with gateway.wire() as wire:
        await wire.send(handshake() + EARLY + bytes(size))
        await wire.reader.readuntil(b"\r\n\r\n")

        assert await wire.reader.readexactly(len(EARLY) + size) == EARLY + bytes(size)
    assert len(gateway.upstream.received) == 1


async def test_w04_bytes_right_behind_the_101_reach_the_client(gateway: GatewayUnderTest) -> None:
    rest = b"\x82\x7f" + (150_000).to_bytes(8, "big") + bytes(150_000)
    gateway.upstream.respond_early = then_echo(b"HTTP/1.1 100 Continue\r\n\r\n" + switching(rest=rest))
    async with gateway.wire() as wire:
        head = await upgraded(wire, handshake())

        assert head.count(b"HTTP/1.1") == 1
        assert await wire.reader.readexactly(len(rest)) == rest


async def test_w04_a_subprotocol_and_an_extension_out_of_those_offered_are_agreed(gateway: GatewayUnderTest) -> None:
    agreed = ("Sec-WebSocket-Protocol: v2.chat", "Sec-WebSocket-Extensions: permessage-deflate; a=1")
    gateway.upstream.respond_early = then_echo(switching(*agreed))
    offers = (
        "Sec-WebSocket-Protocol: v1.chat, v2.chat",
        'Sec-WebSocket-Extensions: other; x="a, b", permessage-deflate; client_max_window_bits',
    )
    async with gateway.wire() as wire:
        head = await upgraded(wire, handshake("/public/ws", *offers))

    assert all(line.encode() in head for line in agreed)
    assert gateway.upstream.last.one("sec-websocket-protocol") == "v1.chat, v2.chat"
    assert gateway.upstream.last.one("sec-websocket-extensions") == offers[1].partition(": ")[2]


async def test_w04_an_upstream_that_leaves_before_its_answer_is_unreachable(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond_early = answering_and_closing(b"")

    reply = await gateway.ask(handshake())

    assert (reply.status, reply.code) == (502, "upstream_unreachable")
    assert len(gateway.upstream.received) == 1
