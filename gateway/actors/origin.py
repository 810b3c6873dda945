"""Who acts and from where, as audit events tell it: the one place where a request becomes an `Origin`."""

from gateway.actors.actor import Actor
from gateway.credentials.kinds import CredentialKind
from gateway.edge import slots
from gateway.edge.arrival import Arrived
from provisioning.audit import Origin


def origin_of(actor: Actor | None, arrived: Arrived) -> Origin:
    """Say who acts.

    Args:
        actor: None: the gateway itself does, because of this request (a webhook, say).
        arrived: The request.
    """
    agent = arrived.fields.lifted[slots.USER_AGENT]
    address, user_agent = arrived.view.address or None, agent.decode("latin-1") if agent is not None else None
    request_id = arrived.incoming.request_id
    if actor is None:
        return Origin("gateway", None, None, address, user_agent, request_id)
    principal = actor.principal
    impersonator = principal.impersonator.subject if principal.impersonator is not None else None
    if principal.kind is CredentialKind.SYSTEM_TOKEN:
        return Origin("system_token", principal.subject.removeprefix("system:"), None, address, user_agent, request_id)
    if principal.token_id is not None:
        return Origin("api_token", principal.token_id, impersonator, address, user_agent, request_id)
    return Origin("user", actor.user_id, impersonator, address, user_agent, request_id)
