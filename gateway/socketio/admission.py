"""A CONNECT packet, judged as a request would be: credential, route, rules; and what goes up in its place.

It is judged under the settings in force when it comes, however old the connection is, with the fields of the request
that carries it: a token in the packet counts first, then what the handshake or the polling request brought.
"""

from collections.abc import Sequence

import structlog

from gateway.actors.beliefs import Caller
from gateway.credentials.find import find_credentials
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.credentials.session_cookie import is_sign_alone
from gateway.credentials.websocket import find_websocket_tokens, websocket_credential
from gateway.edge import slots
from gateway.edge.arrival import Arrived
from gateway.errors import CredentialRejected, GatewayError, PolicyDenied, VerifierUnavailable
from gateway.pipeline import Pipeline
from gateway.policy.cross_site import check_cross_site
from gateway.policy.decision import decide
from gateway.policy.routes import Auth, CompiledRoute
from gateway.problems import code_of
from gateway.rooms import Rooms
from gateway.socketio.packets import Connect
from gateway.socketio.session import Session
from gateway.way import Way

_log = structlog.get_logger()


async def admit(pipeline: Pipeline, arrived: Arrived, session: Session, text: bytes) -> bytes | None:
    """Judge a CONNECT packet.

    Args:
        pipeline: In force now.
        arrived: The handshake or polling request that carries it.
        session: Takes note of what comes of it.
        text: The packet, whole.

    Returns:
        The packet for the upstream; None when it was refused, and the answer is among the session's.

    Raises:
        PacketRefused: It is none, or its namespace is somebody else's.
        VerifierUnavailable: Nobody can tell now whether the credential is good.
    """
    connect, since = Connect.parse(text), pipeline.rooms.live.ends
    session.checking()
    try:
        caller, assertion = await _judge(pipeline, arrived, session, connect.token)
    except VerifierUnavailable:
        raise
    except GatewayError as error:
        request_id = arrived.incoming.request_id
        session.refuse(connect.namespace, error, request_id)
        _log.info(
            "socket.io connect refused",
            code=code_of(error),
            reason=error.reason,
            request_id=request_id,
            route=session.route,
        )
        return None
    finally:
        session.checked()
    if session.ended is not None:
        return None
    session.admit(connect.namespace, pipeline.rooms.live, caller.actor if caller is not None else None, since)
    if session.ended is not None:  # its caller was, while we asked
        return None
    return connect.with_assertion(assertion)


async def _judge(
    pipeline: Pipeline, arrived: Arrived, session: Session, token: str | None
) -> tuple[Caller | None, str | None]:
    """Find who connects, and what the upstream is told of them.

    Raises:
        GatewayError: They may not, or nobody can tell.
    """
    rooms, way = pipeline.rooms, pipeline.direct(arrived)
    rule = way.rule
    if way.endpoint is not None or not rule.socketio or rule.upstream != session.upstream:
        raise PolicyDenied("route_changed")
    with rooms.lease:
        caller = await _caller(pipeline, way, presented(rooms, arrived, rule, token))
        if caller is None:
            return None, None
        await _use_up(rooms, session, caller)
        line = rooms.assertions.line(caller, rule.upstream)
    assertion = line.partition(b":")[2].strip().decode("ascii")
    if not assertion:  # too long to be sent; an upstream that is told nothing would take them for nobody
        raise PolicyDenied("assertion_too_long")
    return caller, assertion


async def _caller(pipeline: Pipeline, way: Way, found: Sequence[Credential]) -> Caller | None:
    if not found:
        decide(None, way.rule)
        pipeline.rooms.metrics.decided("none", "anonymous", "ok")
        return None
    way.credentials = tuple(found)
    await pipeline.resolve(way)
    return way.caller


async def _use_up(rooms: Rooms, session: Session, caller: Caller) -> None:
    """Use a token up, once for all namespaces of a connection (`websocket.single_use`)."""
    principal = caller.actor.principal
    if rooms.replays is None or principal.binding is None or principal.kind is not CredentialKind.WEBSOCKET_TOKEN:
        return
    if principal.binding.token not in session.used:
        await rooms.replays.use(principal.binding.token, principal.expires_at)
        session.used.add(principal.binding.token)


def presented(rooms: Rooms, arrived: Arrived, rule: CompiledRoute, token: str | None) -> tuple[Credential, ...]:
    """Find what counts on this route: of the packet, then of the request that carries it.

    Args:
        rooms: Of the pipeline.
        arrived: The request.
        rule: Of its route.
        token: Of the packet; None when it shows none, or for the request alone.

    Raises:
        CredentialMalformed: Something of it cannot be read.
    """
    fields = arrived.fields
    found = find_credentials(
        arrived.authorization,
        fields.lifted[slots.API_KEY],
        fields.all(slots.COOKIE),
        rooms.cookie_rules,
        rooms.clock(),
        rooms.own_issuer,
        find_websocket_tokens(arrived.target.query, arrived.incoming.fields),
    )
    if token is not None:
        found = (websocket_credential(Carrier.PACKET, token.encode()), *found)
    if rule.auth is Auth.OPTIONAL:  # a sign of a session elsewhere is no credential
        found = tuple(one for one in found if not is_sign_alone(one))
    accepted = tuple(one for one in found if one.kind in rule.accepts)
    if token is not None and (not accepted or accepted[0].carrier is not Carrier.PACKET):
        raise CredentialRejected("kind_not_accepted")
    return accepted


def check_origin(rooms: Rooms, arrived: Arrived, rule: CompiledRoute) -> None:
    """Hold a request that carries a session's cookie against the cross-site rule, before anything goes up.

    Raises:
        CrossSite: It comes from a page that is not ours.
        CredentialMalformed: As `presented`.
    """
    found = presented(rooms, arrived, rule, None)
    if not rule.cross_site_allowed and any(one.carrier is Carrier.COOKIE for one in found):
        check_cross_site(
            arrived.incoming.method,
            arrived.head.upgrade is not None,
            arrived.fields.lifted[slots.ORIGIN],
            arrived.fields.lifted[slots.SEC_FETCH_SITE],
            rooms.own_origins,
        )
