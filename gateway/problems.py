"""How HTTP tells each failure of `errors.py`: one table, one translator.

RFC 9457 `application/problem+json` with a stable `code` and the request's id; the challenge of RFC 6750 §3; a page for
browsers. The body says no more than the code does: the exact reason goes to log and metric.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import orjson

from gateway import errors
from gateway.answer import NO_SNIFF, NO_STORE, Answer, FieldLine
from gateway.limits.errors import RateLimited, RateLimiterUnavailable, WebsocketsExceeded
from gateway.listen.errors import BodyTimedOut
from gateway.revocation.errors import SessionRevoked

REALM = "actorgate"


@dataclass(frozen=True, slots=True)
class Row:
    """How one class of failure is told.

    Attributes:
        detail: One sentence for the caller: what is wrong, and what would help.
        challenge: RFC 6750 error word for WWW-Authenticate; empty for a bare challenge; None for no challenge.
        close: The client's connection must not be used again.
    """

    status: HTTPStatus
    detail: str
    challenge: str | None = None
    close: bool = False


_S = HTTPStatus
TABLE: dict[type[errors.GatewayError], Row] = {
    errors.RequestMalformed: Row(_S.BAD_REQUEST, "The request is not well-formed HTTP/1.1.", close=True),
    errors.TargetInvalid: Row(_S.BAD_REQUEST, "The request target is not one this gateway forwards.", close=True),
    errors.HostInvalid: Row(_S.BAD_REQUEST, "The Host field is missing, repeated or not a host.", close=True),
    errors.HostUnknown: Row(_S.MISDIRECTED_REQUEST, "This host is not served here."),
    errors.HeadTooLarge: Row(_S.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request head is too large.", close=True),
    errors.HeadTimedOut: Row(_S.REQUEST_TIMEOUT, "The request head did not arrive in time.", close=True),
    BodyTimedOut: Row(_S.REQUEST_TIMEOUT, "The request body did not arrive in time.", close=True),
    errors.VersionUnsupported: Row(
        _S.HTTP_VERSION_NOT_SUPPORTED, "Only HTTP/1.0 and HTTP/1.1 are spoken here.", close=True
    ),
    errors.CodingUnsupported: Row(_S.NOT_IMPLEMENTED, "The only transfer coding taken here is chunked.", close=True),
    errors.ExpectationFailed: Row(_S.EXPECTATION_FAILED, "The only expectation met here is 100-continue.", close=True),
    errors.MethodRefused: Row(_S.METHOD_NOT_ALLOWED, "This method is not allowed here."),
    errors.HandshakeMalformed: Row(_S.BAD_REQUEST, "This is not a well-formed websocket handshake.", close=True),
    errors.WebsocketVersionUnsupported: Row(
        _S.UPGRADE_REQUIRED, "The only websocket version spoken here is 13.", close=True
    ),
    errors.ContentTooLarge: Row(_S.REQUEST_ENTITY_TOO_LARGE, "The body is too large.", close=True),
    errors.ContentTypeUnsupported: Row(_S.UNSUPPORTED_MEDIA_TYPE, "Send the body as application/json."),
    errors.ContentInvalid: Row(_S.UNPROCESSABLE_ENTITY, "The body is not what this endpoint takes."),
    errors.ScopeUnknown: Row(_S.UNPROCESSABLE_ENTITY, "There is no such scope here."),
    errors.ExpiryInvalid: Row(_S.UNPROCESSABLE_ENTITY, "The token may not end then."),
    errors.QueryInvalid: Row(_S.BAD_REQUEST, "The query is not what this endpoint takes."),
    errors.StateConflict: Row(_S.CONFLICT, "This does not fit the present state."),
    errors.TokenOver: Row(_S.CONFLICT, "This token was revoked or replaced, or has expired."),
    errors.TokenLimit: Row(_S.CONFLICT, "You have as many tokens as you may have; revoke one first."),
    errors.OwnAccountRefused: Row(_S.CONFLICT, "You cannot take your own rights away; ask another administrator."),
    errors.SecretTaken: Row(_S.GONE, "There is no secret to reveal: it was revealed already, or its time is over."),
    errors.SignatureInvalid: Row(_S.FORBIDDEN, "The signature of this message is missing or wrong."),
    errors.WebhookRefused: Row(_S.BAD_REQUEST, "The signature, time or content of this webhook is not taken here."),
    errors.RouteUnknown: Row(_S.NOT_FOUND, "There is nothing here."),
    errors.ConnectionUnknown: Row(_S.NOT_FOUND, "You have no open websocket of this id here; connect anew."),
    errors.EngineRequestRefused: Row(
        _S.BAD_REQUEST, "This gateway takes no such Socket.IO request; connect with Engine.IO 4, by websocket alone."
    ),
    errors.EngineSessionUnknown: Row(_S.BAD_REQUEST, "There is no Socket.IO session of this id here; connect anew."),
    errors.CredentialMissing: Row(_S.UNAUTHORIZED, "Sign in, or send a credential.", challenge=""),
    errors.CredentialMalformed: Row(
        _S.BAD_REQUEST, "The credential fields of the request are malformed.", challenge="invalid_request"
    ),
    errors.CredentialConflict: Row(
        _S.BAD_REQUEST, "The request carries credentials of two different users.", challenge="invalid_request"
    ),
    errors.CredentialRejected: Row(
        _S.UNAUTHORIZED, "The credential is not valid, or not valid any more.", challenge="invalid_token"
    ),
    errors.SessionPending: Row(
        _S.UNAUTHORIZED, "The session has an unfinished task; finish signing in.", challenge="invalid_token"
    ),
    SessionRevoked: Row(_S.UNAUTHORIZED, "This session was ended; sign in again.", challenge="invalid_token"),
    errors.UserDeleted: Row(_S.UNAUTHORIZED, "This user was deleted.", challenge="invalid_token"),
    RateLimited: Row(_S.TOO_MANY_REQUESTS, "You may do this again a little later: see Retry-After."),
    WebsocketsExceeded: Row(_S.TOO_MANY_REQUESTS, "You have as many websockets open as you may have; close one first."),
    RateLimiterUnavailable: Row(_S.SERVICE_UNAVAILABLE, "Requests cannot be counted now; try again."),
    errors.VerifierUnavailable: Row(_S.SERVICE_UNAVAILABLE, "The credential cannot be checked now; try again."),
    errors.StoreUnavailable: Row(_S.SERVICE_UNAVAILABLE, "Records cannot be read now; try again."),
    errors.ActorUnknown: Row(_S.FORBIDDEN, "This user is not known here."),
    errors.UserDisabled: Row(_S.FORBIDDEN, "This user was disabled."),
    errors.OrganizationLeft: Row(_S.FORBIDDEN, "The owner of this token left its organization."),
    errors.OrganizationRequired: Row(_S.FORBIDDEN, "Choose an organization first."),
    errors.PolicyDenied: Row(_S.FORBIDDEN, "You may not do this."),
    errors.PlanMissing: Row(_S.FORBIDDEN, "Your organization's plan does not include this."),
    errors.ScopeMissing: Row(_S.FORBIDDEN, "The token's scopes do not allow this.", challenge="insufficient_scope"),
    errors.CrossSite: Row(_S.FORBIDDEN, "A signed-in browser may send this only from the application's own site."),
    errors.ImpersonationRefused: Row(_S.FORBIDDEN, "This is not allowed while acting as another user."),
    errors.UpstreamError: Row(_S.BAD_GATEWAY, "The application behind this gateway failed to answer."),
    errors.UpstreamUnreachable: Row(_S.BAD_GATEWAY, "The application behind this gateway cannot be reached."),
    errors.UpstreamMalformed: Row(_S.BAD_GATEWAY, "The application behind this gateway answered badly."),
    errors.UpstreamTimedOut: Row(_S.GATEWAY_TIMEOUT, "The application behind this gateway did not answer in time."),
    errors.UpstreamBusy: Row(_S.SERVICE_UNAVAILABLE, "The application behind this gateway is busy; try again."),
}
INTERNAL = Row(_S.INTERNAL_SERVER_ERROR, "Something went wrong here.", close=True)
INTERNAL_CODE = "internal_error"

PageRenderer = Callable[[Row, str, str], bytes]
"""Renders the HTML page of (row, code, request id)."""


def row_of(error: BaseException) -> Row:
    """Find how an error is told; anything that is not ours is an internal error without detail."""
    for cls in type(error).__mro__:
        if issubclass(cls, errors.GatewayError) and cls in TABLE:
            return TABLE[cls]
    return INTERNAL


def code_of(error: BaseException) -> str:
    """The stable code of an error."""
    return error.code if isinstance(error, errors.GatewayError) else INTERNAL_CODE


def answer_for(
    error: BaseException, request_id: str, *, cors: tuple[FieldLine, ...] = (), page: PageRenderer | None = None
) -> Answer:
    """Translate a failure.

    Args:
        error: What was raised.
        request_id: Told to the caller, so that they can tell us.
        cors: Fields that let an allowed origin's script read the answer.
        page: Renders HTML instead of JSON, for a browser's navigation.
    """
    row, code = row_of(error), code_of(error)
    if page is not None:
        content_type, body = b"text/html; charset=utf-8", page(row, code, request_id)
    else:
        faults = error.faults if isinstance(error, errors.ContentInvalid) else ()
        content_type, body = b"application/problem+json", _problem(row, code, request_id, faults)
    fields = [(b"Content-Type", content_type), NO_STORE, NO_SNIFF, (b"X-Request-Id", request_id.encode("ascii"))]
    fields += _extras(error, row)
    if page is not None:
        policy = b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
        fields.append((b"Content-Security-Policy", policy))
    vary = b"Accept, Origin" if not cors else b"Accept"
    return Answer(row.status, (*fields, (b"Vary", vary), *cors), body, close=row.close)


def _problem(row: Row, code: str, request_id: str, faults: Sequence[errors.Fault]) -> bytes:
    problem: dict[str, object] = {
        "type": "about:blank",
        "title": row.status.phrase,
        "status": row.status.value,
        "detail": row.detail,
        "code": code,
        "requestId": request_id,
    }
    if faults:  # RFC 9457 §3.1 shows this extension
        problem["errors"] = [{"pointer": fault.pointer, "detail": fault.detail} for fault in faults]
    return orjson.dumps(problem)


def _extras(error: BaseException, row: Row) -> list[FieldLine]:
    extras: list[FieldLine] = []
    if row.challenge is not None:
        challenge = f'Bearer realm="{REALM}"'
        if row.challenge:
            challenge += f', error="{row.challenge}"'
        if isinstance(error, errors.ScopeMissing):
            challenge += f', scope="{" ".join(error.scopes)}"'
        extras.append((b"WWW-Authenticate", challenge.encode("ascii")))
    if isinstance(error, errors.VerifierUnavailable | errors.UpstreamBusy | RateLimited):
        extras.append((b"Retry-After", b"%d" % max(1, error.retry_after_s)))
    if isinstance(error, errors.MethodRefused):
        extras.append((b"Allow", ", ".join(error.allowed).encode("ascii")))
    if isinstance(error, errors.WebsocketVersionUnsupported):
        # RFC 9110 §15.5.22 and §7.8 want the protocol named, and `Connection` to say so.
        extras += [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Version", b"13")]
    return extras
