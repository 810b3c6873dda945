"""What can fail on a request's way, named in our terms.

Facts travel as attributes; no HTTP lives here. `problems.py` says how HTTP tells each of these.
`code` is the stable word of an error: the same in the problem document, the log field and the metric label.
`reason` is the exact cause from a closed set, for log and metric only: it never reaches the client.
"""

from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a body, told to the client.

    Attributes:
        pointer: Where, a JSON Pointer (RFC 6901); empty for the whole.
        detail: What, a sentence of ours that repeats nothing of the body.
    """

    pointer: str
    detail: str


class GatewayError(Exception):
    """Anything the gateway refuses or cannot do.

    Attributes:
        code: Stable word of the class.
        reason: Exact cause, a word from a closed set; defaults to `code`.
    """

    code: ClassVar[str]

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason or self.code
        super().__init__(self.reason)

    def caused_by(self, cause: Exception) -> Self:
        """The same, with its cause, which `raise … from` leaves out in compiled modules (mypyc)."""
        self.__cause__ = cause
        return self


# What arrived cannot be read as a request we take.


class RequestMalformed(GatewayError):
    """The message breaks HTTP's grammar or a limit of ours in a way we do not repair."""

    code = "request_malformed"


class TargetInvalid(RequestMalformed):
    """The request target is not a plain origin-form target (`edge/target.py`)."""

    code = "target_invalid"


class HostInvalid(RequestMalformed):
    """The Host field is missing, doubled, or not a host."""

    code = "host_invalid"


class HostUnknown(GatewayError):
    """The Host is well formed but not one of `hosts`."""

    code = "host_unknown"


class HeadTooLarge(GatewayError):
    """The request head is over `limits.head_bytes` or `limits.head_fields`."""

    code = "head_too_large"


class HeadTimedOut(GatewayError):
    """The request head did not arrive within `limits.head_timeout`."""

    code = "head_timeout"


class VersionUnsupported(GatewayError):
    """An HTTP version other than 1.0 and 1.1."""

    code = "version_unsupported"


class CodingUnsupported(GatewayError):
    """A transfer coding other than `chunked` alone (RFC 9112 §6.1)."""

    code = "coding_unsupported"


class ExpectationFailed(GatewayError):
    """An Expect other than 100-continue (RFC 9110 §10.1.1)."""

    code = "expectation_failed"


class MethodRefused(GatewayError):
    """TRACE, CONNECT, or a method an own endpoint does not have.

    Attributes:
        allowed: Methods for the Allow field, empty when none fits the target.
    """

    code = "method_not_allowed"

    def __init__(self, allowed: tuple[str, ...] = (), reason: str | None = None) -> None:
        super().__init__(reason)
        self.allowed = allowed


class HandshakeMalformed(RequestMalformed):
    """A websocket handshake that is none (RFC 6455 §4.2.1)."""

    code = "handshake_malformed"


class WebsocketVersionUnsupported(GatewayError):
    """A websocket version other than 13 (RFC 6455 §4.4)."""

    code = "websocket_version_unsupported"


class ContentTooLarge(GatewayError):
    """The body for an own endpoint is over its limit."""

    code = "content_too_large"


class ContentTypeUnsupported(GatewayError):
    """The body for an own endpoint is not JSON by its Content-Type."""

    code = "content_type_unsupported"


class ContentInvalid(GatewayError):
    """The body for an own endpoint is JSON, but not what the endpoint takes.

    Attributes:
        faults: What is wrong where.
    """

    code = "content_invalid"

    def __init__(self, reason: str | None = None, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(reason)
        self.faults = faults


class ScopeUnknown(ContentInvalid):
    """A scope that exists neither among ours nor in `tokens.scopes`."""

    code = "scope_unknown"


class ExpiryInvalid(ContentInvalid):
    """A token shall end at a moment that is past, too late, or never, where that is not allowed."""

    code = "expiry_invalid"


class QueryInvalid(ContentInvalid):
    """The query of an own endpoint is not what it takes; `faults` point at parameters by their names."""

    code = "query_invalid"


class StateConflict(GatewayError):
    """What is asked for does not fit what the records say now."""

    code = "conflict"


class TokenOver(StateConflict):
    """An API token that was revoked, replaced or has expired cannot be changed any more."""

    code = "token_ended"


class TokenLimit(StateConflict):
    """The user has `tokens.per_user` API tokens."""

    code = "token_limit_reached"


class OwnAccountRefused(StateConflict):
    """An administrator would take their own rights away."""

    code = "own_account"


class SecretTaken(GatewayError):
    """There is no secret to reveal (any more)."""

    code = "secret_gone"


class SignatureInvalid(GatewayError):
    """A signed message whose signature is missing or wrong."""

    code = "signature_invalid"


class WebhookRefused(GatewayError):
    """A webhook that is not its sender's, not meant for us, too old or too new, or that cannot be read."""

    code = "webhook_refused"


class RouteUnknown(GatewayError):
    """No own endpoint and no route: nothing is open by accident. Also: no record of this id that is the caller's."""

    code = "not_found"


class ConnectionUnknown(GatewayError):
    """No websocket of this caller has this id, in this process."""

    code = "connection_unknown"


class EngineRequestRefused(GatewayError):
    """A request of Engine.IO that no client of version 4 sends, or that cannot be judged here."""

    code = "socketio_request_refused"


class EngineSessionUnknown(GatewayError):
    """No polling session has this `sid`, in this process."""

    code = "socketio_session_unknown"


# Who calls.


class CredentialMissing(GatewayError):
    """A route demands a credential, and none of a kind we speak was presented."""

    code = "credential_missing"


class CredentialMalformed(GatewayError):
    """Field grammar or duplicates of a credential field."""

    code = "invalid_request"


class CredentialConflict(CredentialMalformed):
    """Two credentials that both verify name different users."""

    code = "credential_conflict"


class CredentialRejected(GatewayError):
    """The credential was checked and is bad; `reason` says how."""

    code = "invalid_token"


class SessionPending(CredentialRejected):
    """A session with an unfinished task (`sts: pending`), on a route without `allow_pending`."""

    code = "session_pending"


class UserDeleted(CredentialRejected):
    """The subject was deleted at Clerk; a token of theirs that still lives does not bring them back."""

    code = "user_deleted"


class VerifierUnavailable(GatewayError):
    """Signing keys or a token store cannot be asked now: neither good nor bad.

    Attributes:
        retry_after_s: Seconds a client should wait, at least 1.
    """

    code = "verifier_unavailable"

    def __init__(self, reason: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


# What they may do.


class ActorUnknown(GatewayError):
    """The principal is proven, but our records refuse to make an Actor of it."""

    code = "actor_unknown"


class UserDisabled(ActorUnknown):
    """An operator disabled this user."""

    code = "user_disabled"


class OrganizationLeft(ActorUnknown):
    """The owner of an API token is no member of the token's organization any more."""

    code = "organization_left"


class OrganizationRequired(ActorUnknown):
    """No Clerk organization in the token and personal organizations are off."""

    code = "organization_required"


class PolicyDenied(GatewayError):
    """The Actor is known and may not; `reason` names the rule (`policy/decision.py`)."""

    code = "forbidden"


class PlanMissing(PolicyDenied):
    """The organization has none of the plans the route demands, or its subscription does not count any more."""

    code = "plan_missing"


class ScopeMissing(PolicyDenied):
    """A scope the route demands is not among the Actor's.

    Attributes:
        scopes: What the route demands, for the challenge (RFC 6750 §3).
    """

    code = "insufficient_scope"

    def __init__(self, scopes: tuple[str, ...]) -> None:
        super().__init__()
        self.scopes = scopes


class CrossSite(PolicyDenied):
    """A cookie credential on an unsafe request from another site."""

    code = "cross_site"


class ImpersonationRefused(PolicyDenied):
    """Denied while someone acts as this user."""

    code = "impersonation_refused"


# What lies behind us.


class StoreUnavailable(VerifierUnavailable):
    """PostgreSQL cannot be asked now."""

    code = "store_unavailable"


class UpstreamError(GatewayError):
    """Something went wrong with an upstream, before a byte of its answer went to the client."""

    code = "upstream_error"


class UpstreamUnreachable(UpstreamError):
    """Dialling failed or the connection died before an answer."""

    code = "upstream_unreachable"


class UpstreamMalformed(UpstreamError):
    """What came back is not an HTTP answer we relay."""

    code = "upstream_malformed"


class UpstreamTimedOut(UpstreamError):
    """No answer within `response_timeout`."""

    code = "upstream_timeout"


class UpstreamBusy(UpstreamError):
    """All connections are in use and the queue did not move within `queue_timeout`.

    Attributes:
        retry_after_s: Seconds a client should wait.
    """

    code = "upstream_busy"

    def __init__(self, reason: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
