"""For applications behind Actorgate: who calls, from the assertion the gateway signed."""

from actorgate_upstream.actor import Actor, Organization
from actorgate_upstream.asgi import ActorMiddleware
from actorgate_upstream.errors import AssertionInvalid, AssertionMissing, AssertionRefused, KeysUnavailable
from actorgate_upstream.keys import Keys
from actorgate_upstream.verifier import Verifier

__all__ = [
    "Actor",
    "ActorMiddleware",
    "AssertionInvalid",
    "AssertionMissing",
    "AssertionRefused",
    "Keys",
    "KeysUnavailable",
    "Organization",
    "Verifier",
]
