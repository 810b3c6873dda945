"""What goes up of a request for a websocket: no token, and the connection's name. Pure.

On a handshake the parameter `token` and the subprotocol pair are the gateway's, whatever they hold. A plain request of
the same route keeps a `token` of the application's own; one that we minted stays here, although it does not count.
"""

from gateway.credentials.kinds import Credential
from gateway.credentials.websocket import (
    Field,
    find_websocket_tokens,
    names_issuer,
    offers_mark_alone,
    without_token,
    without_token_in_url,
    without_tokens,
)
from gateway.edge.arrival import Arrived, Incoming, new_request_id
from gateway.edge.handshake import Handshake, judge_handshake
from gateway.edge.head import Head
from gateway.edge.target import Target
from gateway.policy.routes import CompiledRoute

CONNECTION_ID = b"X-Actor-Connection-Id"


def websocket_tokens_of(arrived: Arrived) -> tuple[Credential, ...]:
    """Find the tokens of a real handshake; any other request brings none.

    Raises:
        HandshakeMalformed: And its kin: a handshake that is none is refused as such, before any token counts.
        CredentialMalformed: As `find_websocket_tokens`.
    """
    if arrived.head.upgrade is None or judge_handshake(arrived) is None:
        return ()
    return find_websocket_tokens(arrived.target.query, arrived.incoming.fields)


def judge_departing(arrived: Arrived, rule: CompiledRoute, own_issuer: str) -> tuple[Handshake | None, Arrived]:
    """Judge a request to switch protocols, and take its token out.

    Args:
        arrived: Names a protocol to switch to.
        rule: Of the route it falls under.
        own_issuer: `iss` of the tokens the gateway mints.

    Returns:
        What a 101 is held against, None when it asks for no websocket; and what goes up.

    Raises:
        HandshakeMalformed: As `judge_handshake`.
        WebsocketVersionUnsupported: Likewise.
    """
    handshake, mark = judge_handshake(arrived), None
    if rule.takes_websocket_tokens:
        if handshake is None:
            return None, without_minted(arrived, own_issuer)
        mark = offers_mark_alone(arrived.incoming.fields)
        arrived = without_websocket_token(arrived)
        handshake = judge_handshake(arrived)
    if handshake is None:
        return None, arrived
    name = new_request_id()
    line = b"%b: %b\r\n" % (CONNECTION_ID, name.encode("ascii"))
    return Handshake(handshake.accept, handshake.protocols, handshake.extensions, mark, name, line), arrived


def without_minted(arrived: Arrived, own_issuer: str) -> Arrived:
    """Take a token of ours out of a plain request's target and `Referer`; other values of `token` pass.

    Args:
        arrived: For a route that takes websocket tokens.
        own_issuer: `iss` of the tokens the gateway mints.
    """
    head, target = arrived.head, arrived.target
    if b"token=" in head.passing and b"eferer: " in head.passing:
        passing = [_plain_referer(field, own_issuer) for field in passing_fields(head)]
        head = with_passing(head, passing)
    if target.query:
        target = _with_query(target, without_token(target.query, lambda token: names_issuer(token, own_issuer)))
    return Arrived(arrived.incoming, head, target, arrived.view)


def without_websocket_token(arrived: Arrived) -> Arrived:
    """Take out whatever stands where a token does, in the target, `Referer` and the subprotocols."""
    incoming, target = arrived.incoming, arrived.target
    new_incoming = Incoming(
        incoming.method,
        incoming.target,
        without_tokens(incoming.fields),
        incoming.peer,
        incoming.scheme,
        incoming.request_id,
        incoming.http10,
        incoming.version_known,
    )
    new_incoming.seen, new_incoming.section = incoming.seen, incoming.section
    new_incoming.traceparent = incoming.traceparent
    new_head = with_passing(arrived.head, without_tokens(passing_fields(arrived.head)))
    return Arrived(new_incoming, new_head, _with_query(target, without_token(target.query)), arrived.view)


def _plain_referer(field: Field, own_issuer: str) -> Field:
    name, value = field
    if name.lower() != b"referer":
        return field
    return name, without_token_in_url(value, lambda token: names_issuer(token, own_issuer))


def _with_query(target: Target, query: bytes) -> Target:
    raw = target.raw[: len(target.raw) - len(target.query)] + query
    return Target(raw, target.path, query, target.has_encoded_slash, target.has_encoded_percent)


def with_passing(head: Head, fields: list[Field]) -> Head:
    """The same head with other lines for the upstream."""
    return Head(
        head.received,
        head.fields,
        head.host,
        head.forwarded,
        head.content_length,
        head.chunked,
        head.options,
        head.closes,
        head.upgrade,
        head.continue_wanted,
        head.plain,
        b"".join(b"%b: %b\r\n" % field for field in fields),
    )


def passing_fields(head: Head) -> list[Field]:
    """The lines that pass, taken apart so that they can be written as they were."""
    lines = head.passing.split(b"\r\n")[:-1]
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
