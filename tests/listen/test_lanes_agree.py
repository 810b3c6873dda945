"""Whatever a client sends, both lanes tell it the same, and tell the upstream the same.

Two gateways over one database, each with an upstream of its own, get the same bytes in the same pieces. Nothing here
says what is right (the cases in `tests/security/` do): only that there is one judge. Pieces come when all that came
before is done with: what arrives while a request is judged may be in time for one lane and late for the other.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings

from tests.support.clerk_keys import mint_token
from tests.support.gateway import ORIGIN, GatewayUnderTest, gateway_under_test
from tests.support.postgres import PostgresPerWorker
from tests.support.raw_requests import Sent, streams
from tests.support.upstream import Received
from tests.support.wire import bearer

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {
    # What is known stays known: nothing may depend on how fast a database or a key server answers.
    "cache": {"near_ttl": "1h"},
    "clerk": {"jwks": {"ttl": "1h", "cooldown": "1h"}},
    "trusted_proxies": ["127.0.0.0/8"],
    "cors": {"origins": [ORIGIN]},
    "upstreams": {"app": {"response_timeout": "1h"}},
    "routes": [
        {"path": "/public/**", "auth": "none", "upstream": "app"},
        {"path": "/optional/**", "auth": "optional", "upstream": "app"},
        {"path": "/stripped/**", "auth": "none", "upstream": "app", "strip_prefix": "/stripped"},
        {"path": "/cors/**", "auth": "none", "upstream": "app", "cors": "upstream"},
        {"path": "/kept/**", "auth": "optional", "upstream": "app", "forward_credentials": True},
        {"path": "/private/**", "auth": "required", "upstream": "app"},
    ],
}
QUIET_TURNS = 30
LAST = b"GET /public/last HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWERS = {
    0: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Up: 1\r\n\r\n%b",
    1: b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n",
    2: b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b",
}
RANDOM = re.compile(
    rb"(?<=X-Actor-Assertion: )eyJ[\w.-]+|"
    rb"(?<=traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-)[0-9a-f]{16}|(?<=traceparent: 00-)(?!4bf92)[0-9a-f-]{49}"
    rb"|(?!4bf92)[0-9a-f]{32}|(?<=Date: )[^\r]*|HTTP/1\.1 100 Continue\r\n\r\n"
)
"""What differs every time: assertions, ids, spans, dates, and whether a body came before it could be asked for."""
UNREAD = re.compile(rb'HTTP/1\.1 4(?:00|31) [^{]*\{[^}]*"code":"(?:request_malformed|head_too_large)"[^}]*\}')
"""A head that is too large and malformed as well may be refused for either."""


async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer in the way the target's last octet chooses."""
    kind = received.target[-1] % 3
    raw = ANSWERS[kind] % (len(received.target), received.target)
    writer.write(
        raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if received.head.startswith(b"HEAD ") and kind == 0 else raw
    )
    return kind != 2 and not (received.head.startswith(b"HEAD ") and kind)


class Client(asyncio.Protocol):
    """Keeps what comes, and whether the gateway ended the connection."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.got += data

    def eof_received(self) -> bool:
        self.ended = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)


class Lane:
    """One gateway, and the client that talks to it."""

    def __init__(self, gateway: GatewayUnderTest) -> None:
        self.gateway = gateway
        self.client = Client()

    async def connect(self) -> None:
        self.client, self.gateway.upstream.received[:] = Client(), []
        await asyncio.get_running_loop().create_connection(lambda: self.client, "127.0.0.1", self.gateway.port)

    def progress(self) -> tuple[object, ...]:
        upstream = self.gateway.upstream
        requests = tuple((len(received.body), received.whole) for received in upstream.received)
        return len(self.client.got), self.client.ended, requests, len(upstream.writers)

    def outcome(self) -> dict[str, object]:
        """What was told to whom, without what is different every time."""
        return {
            "client": UNREAD.sub(b"<unread>", RANDOM.sub(b"", self.client.got)),
            "ended": self.client.ended,
            "upstream": [
                (RANDOM.sub(b"", seen.head), seen.body) for seen in self.gateway.upstream.received if seen.whole
            ],
        }


async def settled(lanes: list[Lane]) -> None:
    """Wait until nothing moves: all that takes part runs on this loop, and what it sends arrives at once."""
    quiet, before = 0, [lane.progress() for lane in lanes]
    while quiet < QUIET_TURNS:
        await asyncio.sleep(0)
        now = [lane.progress() for lane in lanes]
        quiet = quiet + 1 if now == before else 0
        before = now


@pytest.fixture(scope="module")
def shared_database_url(postgres: PostgresPerWorker) -> Iterator[str]:
    """One database for both, so that a person has one id."""
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lanes(shared_database_url: str) -> AsyncIterator[list[Lane]]:
    async with AsyncExitStack() as stack:
        made = []
        for fast_lane in (True, False):
            gateway = await stack.enter_async_context(
                gateway_under_test(shared_database_url, fast_lane=fast_lane, **SETTINGS)
            )
            gateway.upstream.respond = respond
            made.append(Lane(gateway))
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tokens(lanes: list[Lane]) -> dict[bytes, bytes]:
    """Tokens by the names examples give them; both gateways have met each, and need ask nobody any more."""
    long: dict[str, Any] = {"exp": int(time.time()) + 86_400}
    good = mint_token(**long)
    made = {
        "good": good,
        "other": mint_token(sub="user_2other", sid="sess_2other", **long),
        "expired": mint_token(now=1_000_000_000),
        "unsigned": good.rpartition(".")[0] + "." + "A" * 342,
        "foreign": mint_token(key="foreign", kid="ins_2foreign", **long),
    }
    for lane in lanes:
        for token in made.values():
            await lane.gateway.get("/private/warm", bearer(token))
    return {name.encode(): token.encode() for name, token in made.items()}


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(sent=streams())
async def test_both_lanes_say_the_same_to_everybody(lanes: list[Lane], tokens: dict[bytes, bytes], sent: Sent) -> None:
    await asyncio.gather(*(lane.connect() for lane in lanes))
    try:
        for piece, pause in [*sent.pieces(tokens), (b"", True), (LAST, True)]:
            for lane in lanes:
                lane.client.send(piece)
            if pause:
                await settled(lanes)
        if lanes[0].outcome() != lanes[1].outcome():
            await asyncio.sleep(0.3)  # no verdict before even a busy machine has come to rest
            await settled(lanes)

        assert lanes[0].outcome() == lanes[1].outcome()
    finally:
        for lane in lanes:
            lane.client.transport.abort()
        await settled(lanes)
