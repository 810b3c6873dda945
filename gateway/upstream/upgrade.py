"""One websocket handshake with an upstream: on a connection of its own, until that is a tunnel's or gone.

An answer other than 101 is an ordinary one and goes to the sink. A 2xx is refused: the client would take it for a
plain answer while the upstream may have switched (RFC 9110 §7.8 leaves that open, and nobody sends it in earnest).
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from gateway.edge.handshake import Handshake, check_switch
from gateway.errors import UpstreamMalformed
from gateway.upstream.answer import AnswerSink
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.exchange import Exchange, OutgoingRequest
from gateway.upstream.reader import AnswerReader

if TYPE_CHECKING:
    from gateway.upstream.pool import Upstream

_PROTOCOL = b"sec-websocket-protocol:"
Switched = Callable[[asyncio.Transport, bytes, bytes], None]
"""Takes the upstream's transport, the 101 for the client, and the bytes that came behind it."""


class Upgrade(Exchange):
    """A handshake; its connection comes from no pool and goes back to none."""

    __slots__ = ("_switched", "handshake")

    def __init__(
        self,
        upstream: "Upstream",
        request: OutgoingRequest,
        sink: AnswerSink,
        handshake: Handshake,
        switched: Switched,
    ) -> None:
        super().__init__(upstream, request, sink)
        self.handshake = handshake
        self._switched = switched

    def start(self) -> None:
        """Dial; a kept connection is never used, so nothing is ever sent twice."""
        self._dialling = self.upstream.loop.create_task(self._dial(fresh=True))

    async def _connect(self, *, fresh: bool, avoid: int | None) -> UpstreamConnection:
        return await self.upstream.connect_apart(lambda address: UpgradingConnection(self.upstream, address, self))

    def switched(self, transport: asyncio.Transport, head: bytes, rest: bytes) -> None:
        """The upstream switched: this exchange is over, and whoever takes the transport owns it."""
        self._over = True
        self.connection = None
        self._switched(transport, head, rest)


class UpgradingConnection(UpstreamConnection):
    """Carries one handshake."""

    __slots__ = ("_upgrade",)

    def __init__(self, pool: "Upstream", address: int, upgrade: Upgrade) -> None:
        super().__init__(pool, address)
        self._upgrade = upgrade

    def begin(self, exchange: Exchange, head: bytes, now: float, *, body_follows: bool = False) -> None:
        """Send the handshake; whatever comes back, no other request follows on this connection."""
        super().begin(exchange, head, now, body_follows=body_follows)
        self.closing = self._reads = True  # no answer is plain here: success without a switch is refused

    def make_reader(self) -> AnswerReader:
        """Make the reader of the handshake's answer."""
        return UpgradeReader(self, self._upgrade)

    def give_away(self) -> None:
        """The upstream switched: no exchange is under way here, and whoever takes the transport owns it."""
        self.exchange = None
        self._drop_reader()
        self.pool.forget_apart(self)
        self.pool.proved(self)


class UpgradeReader(AnswerReader):
    """Reads the answer to a handshake."""

    __slots__ = ("_fields", "_upgrade")

    def __init__(self, connection: UpgradingConnection, upgrade: Upgrade) -> None:
        super().__init__(connection)
        self._upgrade = upgrade
        self._fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field line, kept as it came for the check of the 101."""
        if not self._connection.answered:
            self._fields.append((name, value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Refuse success without a switch; the rest is as with any answer."""
        if self._parser is not None and 200 <= self._parser.get_status_code() < 300:
            self._violation = self._violation or "upgrade_ignored"
        super().on_headers_complete()

    def _skip_interim(self, status: int) -> None:
        if status != 101:
            super()._skip_interim(status)
        elif self._parser is not None and self._parser.get_http_version() != "1.1":
            self._violation = "version"
        else:
            try:
                check_switch(self._fields, self._upgrade.handshake)
            except UpstreamMalformed as error:
                self._violation = error.reason
            return
        self._fields.clear()

    def _switch(self, rest: bytes) -> bool:
        if self._violation is not None:
            return False
        self._drop_nominated()
        # RFC 9110 §8.6: a 101 has no length; where one is sent all the same, it says nothing about what follows.
        lines = [line for line in self._lines if line.partition(b":")[0].lower() != b"content-length"]
        handshake = self._upgrade.handshake
        if handshake.fallback is not None and not any(line.lower().startswith(_PROTOCOL) for line in lines):
            lines.append(b"Sec-WebSocket-Protocol: " + handshake.fallback)
        start = (b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: websocket")
        head = b"\r\n".join((*start, *lines, handshake.lines + b"\r\n"))
        transport = self._connection.transport
        cast(UpgradingConnection, self._connection).give_away()
        self._upgrade.switched(transport, head, rest)
        return True
