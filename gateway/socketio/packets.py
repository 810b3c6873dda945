"""Packets of Engine.IO 4 and Socket.IO 5, read as far as to know what they may do. Pure.

The grammar is narrower than that of any server: what two servers could read differently is refused. Socket.IO for
Python takes `421-/admin,["x"]` for an event of `/admin`, the one for Node does not; it takes a binary message for a
packet when no attachment is due; other Engine.IO servers count attachments in other ways. So a number before a hyphen,
a `?` in a namespace and whatever else no client writes end the connection.

Sources: the protocol documents of engine.io-protocol (v4) and socket.io-protocol (v5); engine.io-parser 5, socket.io-
parser 4, python-engineio 4.15, python-socketio 5.18.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import orjson

from gateway.errors import CredentialMalformed

DEFAULT_NAMESPACE = b"/"
SEPARATOR = b"\x1e"
"""Between the packets of a polling payload."""
PREFIX_CAP = 512
"""Bytes within which a packet must have said what it is and for which namespace."""
CONNECT_CAP = 64 * 1024
"""Bytes of a packet that is held: a token of 16 KiB, and what else an application says when it connects."""
TOKEN = "token"
_CONNECT = b"40"
_NAMESPACE = rb"/[^,?\"\[\]{}\x00-\x20\x7f]*"
_CONNECTS = re.compile(rb"40(?:(%b)(?:,|$))?(\{.*)?" % _NAMESPACE, re.DOTALL)
_DISCONNECTS = re.compile(rb"41(?:(%b),?)?" % _NAMESPACE)
_EVENT = re.compile(rb"4(?:[23]|([56])([1-9][0-9]{0,3})-)(?:(%b),)?(?:[0-9]{0,20})\[" % _NAMESPACE)
_ENGINE = frozenset(b"236")  # ping (of a probe), pong, noop
_CLOSE, _MESSAGE, _UPGRADE = b"1", b"4", b"5"


class PacketRefused(Exception):
    """No client sends this; `reason` is a word from a closed set, for logs."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Kind(Enum):
    """What a packet does."""

    ENGINE = "engine"
    """Keeps the connection alive."""
    CLOSE = "close"
    """Ends it."""
    UPGRADE = "upgrade"
    """Leaves polling for the websocket it comes on."""
    CONNECT = "connect"
    """Asks for a namespace; `Connect.parse` reads it whole."""
    DISCONNECT = "disconnect"
    EVENT = "event"
    """An event or an acknowledgement, with or without attachments."""


@dataclass(frozen=True, slots=True)
class Packet:
    """The beginning of a packet.

    Attributes:
        namespace: As it stands, `/` when it is not named; empty for those of Engine.IO, and for a CONNECT, which only
            `Connect.parse` reads.
        attachments: How many binary messages belong to it and follow.
    """

    kind: Kind
    namespace: bytes = b""
    attachments: int = 0


def read_packet(text: bytes, *, whole: bool) -> Packet | None:
    """Say what a packet is from its beginning.

    Args:
        text: Of one text message, or one part of a polling payload.
        whole: Nothing of it is missing.

    Returns:
        None when more of it is needed; never for one that is whole or longer than `PREFIX_CAP`.

    Raises:
        PacketRefused: `packet_empty`, `packet_malformed`.
    """
    if not text:
        if whole:
            raise PacketRefused("packet_empty")
        return None
    if text[0] in _ENGINE:
        return Packet(Kind.ENGINE)
    if text[:1] == _CLOSE:
        return Packet(Kind.CLOSE)
    packet = _message(text, whole=whole) if text[:1] == _MESSAGE else None
    if packet is not None:
        return packet
    if text == _UPGRADE and whole:
        return Packet(Kind.UPGRADE)
    begins = text[:1] == _MESSAGE or text == _UPGRADE
    if whole or not begins or len(text) >= PREFIX_CAP:
        raise PacketRefused("packet_malformed")
    return None


def _message(text: bytes, *, whole: bool) -> Packet | None:
    if text[:2] == _CONNECT:
        return Packet(Kind.CONNECT)
    event = _EVENT.match(text, 0, PREFIX_CAP)
    if event is not None:
        binary, count, namespace = event.groups()
        return Packet(Kind.EVENT, namespace or DEFAULT_NAMESPACE, int(count) if binary else 0)
    leaving = _DISCONNECTS.fullmatch(text) if whole else None
    return Packet(Kind.DISCONNECT, leaving[1] or DEFAULT_NAMESPACE) if leaving is not None else None


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT packet.

    Attributes:
        namespace: `/` when it is not named.
        auth: What the application says, without the token.
    """

    namespace: bytes
    auth: Mapping[str, object] = field(repr=False)
    _token: object = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: bytes) -> "Connect":
        """Read one that is whole.

        Raises:
            PacketRefused: `connect_malformed`, `connect_too_large`.
        """
        if len(text) > CONNECT_CAP:
            raise PacketRefused("connect_too_large")
        match = _CONNECTS.fullmatch(text)
        if match is None or len(match[1] or b"") > PREFIX_CAP:
            raise PacketRefused("connect_malformed")
        try:
            (match[1] or b"").decode()
            auth = orjson.loads(match[2] or b"{}")
        except ValueError:  # orjson's own error and UnicodeDecodeError are among them
            raise PacketRefused("connect_malformed") from None
        token = auth.pop(TOKEN, None)
        return cls(match[1] or DEFAULT_NAMESPACE, auth, token)

    @property
    def token(self) -> str | None:
        """What it shows, None when that is nothing.

        Raises:
            CredentialMalformed: Something that is no text.
        """
        if self._token is None or self._token == "":
            return None
        if not isinstance(self._token, str):
            raise CredentialMalformed("websocket_token_malformed")
        return self._token

    def with_assertion(self, assertion: str | None) -> bytes:
        """Write it again for the upstream, an assertion in the token's place.

        Args:
            assertion: A JWT; None for somebody who showed nothing.
        """
        auth = dict(self.auth)
        if assertion is not None:
            auth[TOKEN] = assertion
        return _CONNECT + _address(self.namespace) + orjson.dumps(auth)


def connect_error(namespace: bytes, message: str, data: Mapping[str, object]) -> bytes:
    """Write the CONNECT_ERROR that tells a client why it may not have a namespace."""
    return b"44" + _address(namespace) + orjson.dumps({"message": message, "data": data})


def opened_session(answer: bytes) -> tuple[str, float] | None:
    """Read the id and the longest silence (s) out of the answer that opens a polling session; None if it opens none.

    Raises nothing: an upstream may answer what it likes, and what is no session is not remembered.
    """
    first = answer.partition(SEPARATOR)[0]
    if first[:1] != b"0":
        return None
    try:
        opened = orjson.loads(first[1:])
        sid, silence = opened["sid"], (opened["pingInterval"] + opened["pingTimeout"]) / 1000
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(sid, str) or not isinstance(silence, float) or not sid:
        return None
    return sid, silence


def _address(namespace: bytes) -> bytes:
    return b"" if namespace == DEFAULT_NAMESPACE else namespace + b","
