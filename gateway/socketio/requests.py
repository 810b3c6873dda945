"""Requests of Engine.IO 4: which transport, which session, and what goes up of them. Pure.

A server finds session and transport in the query, each library with a parser of its own, so every parameter that
counts must stand there once and as it is spelled.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from gateway.edge.arrival import Arrived, Incoming
from gateway.edge.head import Head
from gateway.errors import EngineRequestRefused
from gateway.identity.websocket import passing_fields, with_passing, without_websocket_token

_COUNT = (b"EIO", b"transport", b"sid", b"j", b"b64")
_LOWERED = frozenset(name.lower() for name in _COUNT)
_MARKS = frozenset((b"EIO", b"transport", b"sid"))
_SID = re.compile(rb"[A-Za-z0-9._~-]{1,128}")


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What a request is to Engine.IO.

    Attributes:
        sid: Session it belongs to; None opens one.
        websocket: It asks for a websocket; else it polls.
    """

    sid: str | None
    websocket: bool


def read_engine_request(arrived: Arrived) -> EngineRequest | None:
    """Read a request to a route of Socket.IO.

    Returns:
        None for a plain request: it names neither a version nor a transport nor a session.

    Raises:
        EngineRequestRefused: `version`, `parameters`, `transport`, `method` or `body`.
    """
    websocket = arrived.head.upgrade is not None
    found = _parameters(arrived.target.query)
    if not websocket and _MARKS.isdisjoint(found):
        return None
    if b"j" in found or b"b64" in found:  # JSONP is a grammar of its own
        raise EngineRequestRefused("parameters")
    sid = found.get(b"sid")
    if sid is not None and _SID.fullmatch(sid) is None:
        raise EngineRequestRefused("parameters")
    if found.get(b"EIO") != b"4":  # the default namespace of version 3 needs no packet at all
        raise EngineRequestRefused("version")
    if found.get(b"transport") != (b"websocket" if websocket else b"polling"):
        raise EngineRequestRefused("transport")
    method = arrived.incoming.method
    if method != "GET" and (websocket or method != "POST" or sid is None):
        raise EngineRequestRefused("method")
    if method == "GET" and arrived.has_body:
        raise EngineRequestRefused("body")
    return EngineRequest(sid.decode("ascii") if sid is not None else None, websocket)


def _parameters(query: bytes) -> dict[bytes, bytes]:
    """The parameters that count.

    Raises:
        EngineRequestRefused: `parameters`: one stands there twice, or in a spelling that only some servers read so.
    """
    found: dict[bytes, bytes] = {}
    for part in re.split(rb"[&;]", query[1:]):
        spelled, _, value = part.partition(b"=")
        name = unquote_to_bytes(spelled.replace(b"+", b" ")).strip().partition(b"[")[0]
        if name.lower() in _LOWERED:
            if spelled not in _COUNT or spelled in found or b";" in query:
                raise EngineRequestRefused("parameters")
            found[spelled] = value
    return found


def going_up(arrived: Arrived, *, length: int | None) -> Arrived:
    """What goes up of a request: no token, and nothing that lets an answer or a frame be compressed, or a
    payload be read in another charset.

    Args:
        arrived: A request of Engine.IO.
        length: Bytes of the body that goes up in its body's place; None: it has none.
    """
    arrived = without_websocket_token(arrived)
    incoming, head = arrived.incoming, arrived.head
    kept = [field for field in incoming.fields if field[0].lower() not in _LEFT]
    passing = [field for field in passing_fields(head) if field[0].lower() not in _LEFT]
    if length is not None:
        passing.append(_JUDGED_AS)
    new_incoming = Incoming(
        incoming.method, incoming.target, kept, incoming.peer, incoming.scheme, incoming.request_id, incoming.http10
    )
    return Arrived(new_incoming, with_passing(_with_length(head, length), passing), arrived.target, arrived.view)


_LEFT = frozenset((b"accept-encoding", b"content-type", b"sec-websocket-extensions", b"expect"))
_JUDGED_AS = (b"Content-Type", b"text/plain;charset=UTF-8")
"""What clients say of a payload; some servers would decode it by another charset that is named."""


def _with_length(head: Head, length: int | None) -> Head:
    return Head(
        head.received,
        head.fields,
        head.host,
        head.forwarded,
        length,
        False,
        head.options,
        head.closes,
        head.upgrade,
        False,
        head.plain,
        head.passing,
    )
