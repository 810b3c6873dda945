"""What is believed of credentials, and for how long: the entries of the near cache.

Not frozen, and no dataclasses: every request looks at one, and they are renewed in place. With many callers each look
at another object waits for main memory, so that what the ordinary request asks of one stands in the object itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from gateway.actors.actor import Actor
from gateway.credentials.kinds import CredentialKind
from gateway.flags.telling import NOTHING_TOLD, Told
from gateway.identity.assertion import Assertion
from gateway.verify.api_tokens import ProvenToken
from gateway.verify.principal import Principal
from provisioning.records import Standing, Subject

K = TypeVar("K", contravariant=True)
V = TypeVar("V")


class Memory(Protocol[K, V]):
    """What we use of cachebox's LRUCache, whose own types leave out that nothing may be found."""

    def get(self, key: K) -> V | None:
        """Give what is kept, if it is."""

    def insert(self, key: K, value: V) -> V | None:
        """Keep it; gives what was there before."""

    def pop(self, key: K, default: Any = None) -> Any:
        """Drop it."""

    def values(self) -> Iterable[V]:
        """Give all that is kept."""

    def __len__(self) -> int:
        """Tell how much is kept."""

    def __contains__(self, key: K) -> bool:
        """Tell whether it is kept."""


class Caller:
    """An Actor with what is prepared once for it.

    Attributes:
        standing: What our records say, as read when the entry was made.
        identity: The identity header block upstreams receive, but for the assertion.
        told: The flags in it, and those for the client.
        kind: Of the principal's credential; and whether it is
        pending: a session with an unfinished task.
        asserted_to: The upstream that was sent the last assertion, None before the first; `identity/assertion.py`
            keeps it in here, with
        assertion: its field line, good
        asserted_at: from then, Unix seconds,
        asserted_until: to then,
        asserted_by: with this generation of the key ring.
        assertions: Those for each upstream, when there are several.
    """

    __slots__ = (
        "actor",
        "asserted_at",
        "asserted_by",
        "asserted_to",
        "asserted_until",
        "assertion",
        "assertions",
        "identity",
        "kind",
        "pending",
        "standing",
        "told",
    )

    def __init__(self, actor: Actor, standing: Standing, identity: bytes, told: Told = NOTHING_TOLD) -> None:
        self.actor = actor
        self.standing = standing
        self.identity = identity
        self.told = told
        self.kind: CredentialKind = actor.principal.kind
        self.pending: bool = actor.principal.pending
        self.asserted_to: str | None = None
        self.assertion = b""
        self.asserted_at = 0.0
        self.asserted_until = 0.0
        self.asserted_by = 0
        self.assertions: dict[str, Assertion] = {}


class Proof:
    """A verified credential.

    Attributes:
        keys_generation: Of the signing keys it was verified with.
        proven_until: When it dies, by the monotonic clock: a clock set back revives nothing.
        expires_at: The same by the wall's clock, Unix seconds.
        kept_at: How often the cache had forgotten anything when it took this; `callers.py` sets it.
    """

    __slots__ = ("expires_at", "kept_at", "keys_generation", "principal", "proven_until")

    def __init__(self, principal: Principal, keys_generation: int, proven_until: float, expires_at: float) -> None:
        self.principal = principal
        self.keys_generation = keys_generation
        self.proven_until = proven_until
        self.expires_at = expires_at
        self.kept_at = 0


def proof_of(proven: ProvenToken, keys_generation: int) -> Proof:
    """An API token is proven for as long as its reading is believed: then its use is noted again."""
    return Proof(proven.principal, keys_generation, proven.believed_until, proven.principal.expires_at)


class KnownCaller(Proof):
    """A verified credential whose Actor is known; it expires with the token, or when the Actor changes by time alone.

    Attributes:
        subject: Whom our records are asked for.
        believed_until: When what they said is old, by the monotonic clock; 0.0: it is believed no more.
        used: A request came with it since its records were read.
        found_at: How often the cache had forgotten anything when this was last found in it.
        due: The round (`renewal.py`) in which our records are asked again; -1: in none.
    """

    __slots__ = ("believed_until", "caller", "due", "found_at", "subject", "used")

    def __init__(self, proof: Proof, caller: Caller, subject: Subject, believed_until: float) -> None:
        expires_at = min(proof.expires_at, caller.actor.changes_at)
        super().__init__(proof.principal, proof.keys_generation, proof.proven_until, expires_at)
        self.caller = caller
        self.subject = subject
        self.believed_until = believed_until
        self.used = False
        self.found_at = -1
        self.due = -1


@dataclass(slots=True)
class LookUps:
    """Look-ups by result, for metrics.

    Attributes:
        stale: Served from memory because PostgreSQL is away; a miss as well.
        renewals: Callers in use whose records were read again before they were old.
    """

    hits: int = 0
    misses: int = 0
    stale: int = 0
    renewals: int = 0
