"""`X-Actor-Assertion`: the identity header set once more, signed, so that an upstream need not trust the network.

Signing costs as much as two whole requests, so it happens once per Actor and upstream: the assertion is used until half
its life. A request on the hot path pays for a look-up and a comparison with the clock.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING

import structlog
from cachebox import LRUCache

from gateway.actors.actor import Actor
from gateway.errors import StoreUnavailable
from gateway.flags.provider import Json
from gateway.identity.header_set import VALUE_CAP
from provisioning.errors import RingEmpty
from provisioning.key_ring import KeyRing

if TYPE_CHECKING:
    from gateway.actors.beliefs import Caller

LIFE_S = 300
_USED_FOR_S = LIFE_S / 2
NO_ASSERTION = b"X-Actor-Assertion: \r\n"
"""What an upstream receives that wants none."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Assertion:
    """One for an Actor and an upstream.

    Attributes:
        line: The whole field line, CRLF after it.
        good_from: Unix seconds: when it was made. A clock set back behind that makes another.
        good_until: Unix seconds: half its life.
        generation: Of the key ring; another one may not know the key any more.
    """

    line: bytes = field(repr=False)
    good_from: float
    good_until: float
    generation: int


class Assertions:
    """Makes assertions and remembers them, in memory alone."""

    def __init__(
        self, ring: KeyRing, upstreams: Collection[str], entries: int, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Remember the settings.

        Args:
            ring: Signs.
            upstreams: Names of those that want assertions.
            entries: How many to remember beside callers, for a person's next session token.
            clock: Unix seconds.
        """
        self._ring = ring
        self._upstreams = frozenset(upstreams)
        self._clock = clock
        self._made: LRUCache[bytes, Assertion] = LRUCache(entries)

    def line(self, caller: "Caller", upstream: str) -> bytes:
        """The field line for a caller and an upstream.

        Raises:
            StoreUnavailable: There is no key to sign with yet.
        """
        if (
            caller.asserted_to == upstream
            and caller.asserted_at <= self._clock() < caller.asserted_until
            and caller.asserted_by == self._ring.generation
        ):
            return caller.assertion
        return self._other(caller, upstream).line

    def _other(self, caller: "Caller", upstream: str) -> Assertion:
        """Find or make another one than the last."""
        now = self._clock()
        known = caller.assertions.get(upstream)
        if known is None or not self._is_good(known, now):
            known = self._assertion(caller, upstream, now)
        if caller.asserted_to not in (None, upstream):
            caller.assertions[upstream] = known
        caller.asserted_to, caller.assertion, caller.asserted_by = upstream, known.line, known.generation
        caller.asserted_at, caller.asserted_until = known.good_from, known.good_until
        return known

    def _is_good(self, known: Assertion, now: float) -> bool:
        return known.good_from <= now < known.good_until and known.generation == self._ring.generation

    def _assertion(self, caller: "Caller", upstream: str, now: float) -> Assertion:
        if upstream not in self._upstreams:
            return Assertion(NO_ASSERTION, -inf, inf, self._ring.generation)
        # Who has the same identity set is the same Actor, whatever token they came with; but who is no user has no id
        # in it, and is told apart by their subject.
        nobody = "" if caller.actor.user_id else caller.actor.principal.subject
        parts = (upstream.encode(), nobody.encode(), caller.identity, caller.told.digest)
        key = hashlib.sha256(b"%b\n%b\n%b\n%b" % parts).digest()
        known: Assertion | None = self._made.get(key)
        if known is None or not self._is_good(known, now):
            generation = self._ring.generation
            known = Assertion(self._signed(caller, upstream, int(now)), int(now), now + _USED_FOR_S, generation)
            self._made.insert(key, known)
        return known

    def _signed(self, caller: "Caller", upstream: str, now: int) -> bytes:
        actor, flags = caller.actor, caller.told.upstream
        token = self._token(actor, upstream, now, flags)
        if len(token) > VALUE_CAP and flags:  # nobody loses their identity for a flag
            _log.warning("flags find no room in the assertion", upstream=upstream, actor_id=actor.user_id)
            token = self._token(actor, upstream, now, {})
        if len(token) > VALUE_CAP:  # servers refuse heads that hold such a line
            _log.warning("assertion too long, left empty", upstream=upstream, actor_id=actor.user_id, bytes=len(token))
            return NO_ASSERTION
        return b"X-Actor-Assertion: %b\r\n" % token.encode("ascii")

    def _token(self, actor: Actor, upstream: str, now: int, flags: Mapping[str, Json]) -> str:
        claims = claims_of(actor, self._ring.issuer, upstream, now, secrets.token_urlsafe(16), flags)
        try:
            return self._ring.sign(claims)
        except RingEmpty as error:
            raise StoreUnavailable(error.reason) from error


def claims_of(
    actor: Actor, issuer: str, audience: str, now: int, token_id: str, flags: Mapping[str, Json] = MappingProxyType({})
) -> dict[str, object]:
    """Tell the identity header set as claims. Pure.

    Args:
        actor: Whose request it is.
        issuer: Our public URL.
        audience: The upstream's name.
        now: Unix seconds.
        token_id: `jti`: of this one alone.
        flags: Those that upstreams are told.
    """
    principal = actor.principal
    claims: dict[str, object] = {
        "iss": issuer,
        "aud": audience,
        "sub": actor.user_id or principal.subject,  # who is no user still has a name
        "iat": now,
        "exp": now + LIFE_S,
        "jti": token_id,
        "role": actor.role,
        "auth": principal.kind,
        "sid": principal.session_id,
        "token_id": principal.token_id,
        "scopes": ["*"] if principal.scopes is None else list(principal.scopes),
        "org": {
            "id": actor.organization_id,
            "role": actor.organization_role,
            "permissions": list(actor.organization_permissions),
        },
        "plan": actor.plan or None,
        "flags": dict(flags),
    }
    if principal.impersonator is not None:
        claims["act"] = {"sub": principal.impersonator.subject}  # RFC 8693 §4.1
    return claims
