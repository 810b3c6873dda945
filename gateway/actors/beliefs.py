"""What is believed of credentials, and for how long: the entries of the near cache.

Not frozen, and no dataclasses: the first is looked at by every request, and renewed in place.
"""

from dataclasses import dataclass, field

from gateway.actors.actor import Actor
from gateway.identity.assertion import Assertion
from gateway.verify.principal import Principal
from provisioning.records import Standing, Subject


@dataclass(frozen=True, slots=True)
class Caller:
    """An Actor with what is prepared once for it.

    Attributes:
        standing: What our records say, as read when the entry was made.
        identity: The identity header block upstreams receive, but for the assertion.
        assertions: The last one for each upstream; `identity/assertion.py` keeps it.
    """

    actor: Actor
    standing: Standing
    identity: bytes = field(repr=False)
    assertions: dict[str, Assertion] = field(default_factory=dict, repr=False, compare=False)


class Proof:
    """A verified credential.

    Attributes:
        keys_generation: Of the signing keys it was verified with.
        proven_until: When it dies, by the monotonic clock: a clock set back revives nothing.
        expires_at: The same by the wall's clock, Unix seconds.
    """

    __slots__ = ("expires_at", "keys_generation", "principal", "proven_until")

    def __init__(self, principal: Principal, keys_generation: int, proven_until: float, expires_at: float) -> None:
        self.principal = principal
        self.keys_generation = keys_generation
        self.proven_until = proven_until
        self.expires_at = expires_at


class KnownCaller(Proof):
    """A verified credential whose Actor is known.

    Attributes:
        subject: Whom our records are asked for.
        believed_until: When what they said is old, by the monotonic clock; 0.0: it is believed no more.
        used: A request came with it since its records were read.
    """

    __slots__ = ("believed_until", "caller", "subject", "used")

    def __init__(self, proof: Proof, caller: Caller, subject: Subject, believed_until: float) -> None:
        super().__init__(proof.principal, proof.keys_generation, proof.proven_until, proof.expires_at)
        self.caller = caller
        self.subject = subject
        self.believed_until = believed_until
        self.used = False
