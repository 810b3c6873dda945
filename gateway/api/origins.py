"""Who acts at an own endpoint in a way that outlasts a session."""

from gateway.api.endpoints import Call
from gateway.errors import ImpersonationRefused
from provisioning.audit import Origin


def origin_of(call: Call) -> Origin:
    """Say who acts, and from where.

    Raises:
        ImpersonationRefused: Somebody acts as this person: what they do here would outlive the session.
    """
    if call.who.actor.principal.impersonator is not None:
        raise ImpersonationRefused
    return call.origin
