"""The rooms that one set of settings makes, as the pipeline walks through them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.actors.callers import Callers
from gateway.actors.system_tokens import SystemTokens
from gateway.api.endpoints import Endpoints
from gateway.credentials.find import Marks
from gateway.credentials.session_cookie import CookieRules
from gateway.edge.forwarded import ForwardingTrust
from gateway.identity.assertion import Assertions
from gateway.limits.limiter import Limiter
from gateway.live.registry import Registry
from gateway.parts import Lease
from gateway.policy.cors import Cors
from gateway.policy.routes import RouteTable
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.usage import Usage
from gateway.upstream.pool import Upstream
from gateway.upstream.tunnel import Tunnels
from gateway.verify.replay import ReplayGuard
from gateway.witness import Witness


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the pipeline walks through; built by `composition.py`, anew at every reload.

    Attributes:
        hosts: Host names served; empty serves any.
        marks: What the tokens taken here are known by where a route reads none.
        own_issuer: `iss` of the tokens the gateway mints.
        replays: Uses websocket tokens up; None: each may be used until it expires.
        polled: Upstreams to which a Socket.IO client may poll: with one process here and one address there.
        own_origins: Origins a cookie credential may come from (`policy/cross_site.py`).
        witness: Told of who came and who was refused; it is written elsewhere.
        usage: Told of uses of features (`track` of a route).
        limiter: Counts requests and bad credentials; None: nothing is limited.
        websockets_each: Most websockets of one user here; None: any number.
        clock: Unix seconds.
        lease: Entered by whoever waits in here for keys or records, so that they are closed after the last alone.
    """

    hosts: frozenset[str]
    trust: ForwardingTrust
    endpoints: Endpoints
    routes: RouteTable
    cookie_rules: CookieRules
    callers: Callers
    witness: Witness
    cors: Cors
    marks: Marks
    own_issuer: str
    system_tokens: SystemTokens
    replays: ReplayGuard | None
    own_origins: frozenset[bytes]
    polled: frozenset[str]
    upstreams: Mapping[str, Upstream]
    assertions: Assertions
    tunnels: Tunnels
    live: Registry
    metrics: Metrics
    usage: Usage
    limiter: Limiter | None
    websockets_each: int | None
    clock: Callable[[], float]
    lease: Lease
