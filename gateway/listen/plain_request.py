"""The plain request at the beginning of what a client sent; the connection's first step with it."""

from typing import TYPE_CHECKING

from gateway.edge.arrival import Arrived, Incoming, new_request_id
from gateway.edge.head import find_request_line
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.listen.fast_lane import FastLane

_GIVE_AWAY = 0


def read_plain(lane: "FastLane", buffer: bytes, end: int, peer: str) -> tuple[Arrived, int, int] | int:
    """Judge the first head in a buffer.

    Args:
        lane: What its connections share.
        buffer: Begins with a head.
        end: Where the head ends, unless it holds an earlier end; then its fields are none that are remembered.
        peer: IP address of the client's end.

    Returns:
        The request, the bytes of its head and of its body. For a request that is not plain, or cannot stand, the bytes
        to lend the connection for; 0: it is given away.
    """
    line = find_request_line(buffer)
    if line is None:
        return _GIVE_AWAY
    try:
        known = lane.heads.judged(buffer, line.end, end)
        if known is None:
            return _GIVE_AWAY
        seen, section, trace, end = known
        head, limits = seen.head, lane.limits
        # Three fields may have been taken out.
        if end + 4 > limits.head_bytes or len(head.received) + 3 > limits.head_fields:
            return _GIVE_AWAY
        head_bytes, body_bytes = end + 4, seen.content_length or head.content_length or 0
        if not head.plain:
            return _GIVE_AWAY if head.chunked else head_bytes + body_bytes
        incoming = Incoming(line.method, line.raw, head.received, peer, lane.scheme, new_request_id())
        incoming.parsed, incoming.seen, incoming.section, incoming.traceparent = line.target, seen, section, trace
        arrived = lane.pipeline.arrive(incoming)
    except GatewayError:
        return _GIVE_AWAY
    return arrived, head_bytes, body_bytes
