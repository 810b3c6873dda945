"""The websocket handshake (RFC 6455 §4): what a client must send, and what an upstream may answer. Pure.

Both ends are checked here, because a tunnel carries bytes that nobody judges any more: an upstream that did not really
switch would read a client's frames as requests, or a client would take an answer for frames.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.edge.arrival import Arrived
from gateway.edge.fields import Field, connection_options, folded
from gateway.errors import HandshakeMalformed, UpstreamMalformed, WebsocketVersionUnsupported

VERSION = b"13"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')
_OURS = b"sec-websocket-"


@dataclass(frozen=True, slots=True)
class Handshake:
    """What the answer to a good handshake is held against.

    Attributes:
        accept: The only right Sec-WebSocket-Accept.
        protocols: Subprotocols the client offers, as spelled.
        extensions: Names of extensions the client offers, lower-cased.
        fallback: Subprotocol to agree on when the upstream names none: the mark of a token pair that was offered and
            taken out, if nothing else was offered. Browsers and npm's `ws` fail a handshake whose offer nobody answers
            (WHATWG WebSockets, "establish a WebSocket connection").
        connection_id: Names the websocket: to the upstream, to the client in the 101, and to whoever renews it.
        lines: Field lines that tell it, each with its CRLF.
    """

    accept: bytes
    protocols: frozenset[bytes]
    extensions: frozenset[bytes]
    fallback: bytes | None = None
    connection_id: str = ""
    lines: bytes = b""


def judge_handshake(arrived: Arrived) -> Handshake | None:
    """Judge a request that asks to switch protocols.

    Returns:
        None when it does not ask for a websocket; another protocol is never switched to, the request is a plain one.

    Raises:
        HandshakeMalformed: It asks for a websocket in a way that two servers could read differently.
        WebsocketVersionUnsupported: Another version than 13.
    """
    if arrived.head.upgrade is None or b"websocket" not in arrived.head.upgrade.lower():
        return None
    incoming = arrived.incoming
    if arrived.head.upgrade.lower() != b"websocket":
        raise HandshakeMalformed("upgrade_to_several")
    if incoming.method != "GET" or incoming.http10:
        raise HandshakeMalformed("upgrade_method")
    if arrived.head.chunked or arrived.content_length is not None:
        raise HandshakeMalformed("upgrade_with_body")
    if any(folded(option).startswith(_OURS) for option in connection_options(arrived.fields)):
        raise HandshakeMalformed("upgrade_nominated")
    fields = _websocket_fields(incoming.fields)
    if _all(fields, b"sec-websocket-version") != [VERSION]:
        raise WebsocketVersionUnsupported
    keys = _all(fields, b"sec-websocket-key")
    if len(keys) != 1 or _KEY.fullmatch(keys[0]) is None:
        raise HandshakeMalformed("websocket_key")
    return Handshake(
        accept_for(keys[0]),
        frozenset(_items(_all(fields, b"sec-websocket-protocol"))),
        frozenset(_names(_all(fields, b"sec-websocket-extensions"))),
    )


def accept_for(key: bytes) -> bytes:
    """Compute the Sec-WebSocket-Accept of a key (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def check_switch(fields: Sequence[Field], handshake: Handshake) -> None:
    """Hold an upstream's 101 against the handshake (RFC 6455 §4.1).

    Args:
        fields: Field lines of the 101, as received.
        handshake: What the client sent.

    Raises:
        UpstreamMalformed: It is no answer to this handshake.
    """
    lowered = [(name.lower(), value.strip(b" \t")) for name, value in fields]
    if [value.lower() for value in _all(lowered, b"upgrade")] != [b"websocket"]:
        raise UpstreamMalformed("switch_upgrade")
    if b"upgrade" not in {option.lower() for option in _items(_all(lowered, b"connection"))}:
        raise UpstreamMalformed("switch_connection")
    if _all(lowered, b"sec-websocket-accept") != [handshake.accept]:
        raise UpstreamMalformed("switch_accept")
    protocols = _all(lowered, b"sec-websocket-protocol")
    if len(protocols) > 1 or not handshake.protocols.issuperset(protocols):
        raise UpstreamMalformed("switch_protocol")
    if not handshake.extensions.issuperset(_names(_all(lowered, b"sec-websocket-extensions"))):
        raise UpstreamMalformed("switch_extension")


def _websocket_fields(fields: Iterable[Field]) -> list[Field]:
    """The handshake's own fields by lower-cased name; a spelling only some servers read as one is refused."""
    found = [(name.lower(), value) for name, value in fields if folded(name).startswith(_OURS)]
    if any(not name.startswith(_OURS) or folded(name) != name for name, _ in found):
        raise HandshakeMalformed("websocket_spelling")
    return found


def _all(fields: Iterable[Field], name: bytes) -> list[bytes]:
    return [value for spelling, value in fields if spelling == name]


def _items(values: Iterable[bytes]) -> list[bytes]:
    """The items of a comma-separated list that may span several field lines."""
    return [item for value in values for part in value.split(b",") if (item := part.strip(b" \t"))]


def _names(values: Iterable[bytes]) -> set[bytes]:
    """The lower-cased names of extensions, without their parameters; a quoted one may hold a comma."""
    bare = (_QUOTED.sub(b"", value) for value in values)
    return {item.partition(b";")[0].strip(b" \t").lower() for item in _items(bare)}
