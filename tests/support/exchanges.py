"""One exchange without a network: transports that keep what is written, and what a client reads of it."""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from gateway.errors import GatewayError
from gateway.listen.relay import Relay
from gateway.upstream.address import UpstreamAddress
from gateway.upstream.answer import AnswerHead
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.exchange import Exchange, OutgoingRequest
from gateway.upstream.pool import Upstream
from tests.support.wire import Answers, Reply

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class KeptTransport(asyncio.Transport):
    """Keeps what is written; tells its protocol of an abort at once, as a loop does a turn later."""

    def __init__(self, protocol: asyncio.Protocol | None = None) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = b""
        self.closing = self.aborted = self.paused = False
        self.buffered = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closing, "written to after the end"
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self._end()

    def abort(self) -> None:
        self.aborted = True
        self._end()

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def _end(self) -> None:
        if not self.closing:
            self.closing = True
            if self.protocol is not None:
                self.protocol.connection_lost(None)


@dataclass
class KeptSink:
    """A sink that keeps the order of calls; the order is a promise (`upstream.answer.AnswerSink`)."""

    calls: list[str] = field(default_factory=list)
    content: bytes = b""
    answer: AnswerHead | None = None
    error: GatewayError | None = None

    def whole(self, head: AnswerHead, body: bytes) -> None:
        self.head(head)
        if body:
            self.body(body)
        self.end()

    def head(self, head: AnswerHead) -> None:
        self.calls.append("head")
        self.answer = head

    def body(self, data: bytes) -> None:
        self.calls.append("body")
        self.content += data

    def end(self) -> None:
        self.calls.append("end")

    def flush(self) -> None:
        pass

    def done(self) -> None:
        self.calls.append("done")

    def failed(self, error: GatewayError) -> None:
        self.calls.append("failed")
        self.error = error


def upstream(
    addresses: Sequence[UpstreamAddress] = (), /, *, port: int = 1, max_connections: int = 4, **times: float
) -> Upstream:
    """An upstream with the settings' defaults, small; at one port of 127.0.0.1, or at these addresses."""
    defaults = {"connect_timeout_s": 2.0, "response_timeout_s": 30.0, "idle_timeout_s": 300.0, "queue_timeout_s": 5.0}
    places = addresses or [UpstreamAddress("127.0.0.1", port)]
    return Upstream("app", places, max_connections=max_connections, **(defaults | times))


def outgoing(method: str = "GET", *, body_follows: bool = False) -> OutgoingRequest:
    """A request as the pipeline hands it over."""
    head = GET.replace(b"GET", method.encode())
    replayable = method in ("GET", "HEAD") and not body_follows
    return OutgoingRequest(head, is_head=method == "HEAD", replayable=replayable, body_follows=body_follows)


@dataclass
class Outcome:
    """What became of one exchange."""

    relay: Relay
    client: KeptTransport
    connection: UpstreamConnection
    upstream: Upstream

    async def reply(self, method: str = "GET") -> Reply:
        """The answer as a strict client reads it; nothing may follow it."""
        reader = asyncio.StreamReader()
        reader.feed_data(self.client.written)
        reader.feed_eof()
        reply = await Answers(reader).reply(method)
        assert await reader.read() == b""
        return reply


def begun(pool: Upstream, sink: KeptSink | Relay, method: str = "GET") -> tuple[UpstreamConnection, Exchange]:
    """Start an exchange on an idle connection of this pool."""
    connection = UpstreamConnection(pool)
    connection.connection_made(KeptTransport(cast(asyncio.Protocol, connection)))
    pool.release(connection)
    exchange = Exchange(pool, outgoing(method), sink)
    exchange.start()
    return connection, exchange


def relayed(
    pieces: Iterable[bytes], *, method: str = "GET", http10: bool = False, close: bool = False, cors: bytes = b""
) -> Outcome:
    """Feed an upstream's answer in these pieces, then perhaps its end, to a relay for one client."""
    client, pool = KeptTransport(), upstream()
    relay = Relay(client, http10=http10, keep_alive=True, cors=cors, changed=lambda: None)
    connection, _ = begun(pool, relay, method)
    for piece in pieces:
        if connection.transport.is_closing():
            break
        connection.data_received(piece)
    if close:
        connection.transport.close()
    return Outcome(relay, client, connection, pool)


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut bytes at these places, which may lie anywhere."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]
