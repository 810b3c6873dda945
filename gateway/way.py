"""A request on its way, between the steps of `pipeline.py`: judged and directed, then ready for its upstream."""

from gateway.actors.beliefs import Caller
from gateway.answer import Answer
from gateway.api.endpoints import Endpoint
from gateway.credentials.kinds import Credential
from gateway.edge.arrival import Arrived
from gateway.edge.handshake import Handshake
from gateway.limits.rules import Quota
from gateway.policy.routes import CompiledRoute
from gateway.upstream.exchange import OutgoingRequest
from gateway.upstream.pool import Upstream


class Way:
    """A judged request and where it leads.

    Attributes:
        rule: The route, or the rule of the own endpoint: who may pass.
        endpoint: None for a proxied request.
        preflight: The answer, when the gateway answers this preflight itself.
        asks_only: A preflight for the upstream to answer: passes as nobody, whatever the rule.
        credentials: What was presented of our kinds, the one that counts first; empty for anonymous.
        caller: Who passed; None for an anonymous request, and before `known` or `resolve` let it pass.
        quota: What limits said of it; None: none was asked.
    """

    __slots__ = ("arrived", "asks_only", "caller", "credentials", "endpoint", "preflight", "quota", "rule")

    def __init__(
        self,
        arrived: Arrived,
        rule: CompiledRoute,
        endpoint: Endpoint | None = None,
        preflight: Answer | None = None,
        asks_only: bool = False,
    ) -> None:
        self.arrived = arrived
        self.rule = rule
        self.endpoint = endpoint
        self.preflight = preflight
        self.asks_only = asks_only
        self.credentials: tuple[Credential, ...] = ()
        self.caller: Caller | None = None
        self.quota: Quota | None = None


class Departure(OutgoingRequest):
    """What to send where.

    Attributes:
        upstream: Where.
        cors: Field lines for the answer, in case the upstream sends none of its own.
        lines: Field lines for the answer, whatever the upstream sends.
        handshake: What a 101 is held against; None for a plain request.
    """

    __slots__ = ("cors", "handshake", "lines", "upstream")

    def __init__(
        self,
        head: bytes,
        is_head: bool,
        replayable: bool,
        body_follows: bool,
        upstream: Upstream,
        cors: bytes,
        handshake: Handshake | None,
        lines: bytes = b"",
    ) -> None:
        super().__init__(head, is_head, replayable, body_follows)
        self.upstream = upstream
        self.cors = cors
        self.handshake = handshake
        self.lines = lines
