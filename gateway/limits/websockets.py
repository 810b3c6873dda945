"""How many websockets one principal may have open (`websocket.max_per_principal`), in this process."""

from gateway.actors.actor import Actor
from gateway.limits.errors import WebsocketsExceeded
from gateway.live.registry import Registry

_RETRY_S = 5
"""Nobody knows when one of them closes; a client that tries again at once gains nothing."""


def check_room(live: Registry, actor: Actor, most: int) -> None:
    """See that there is room for one more; handshakes under way count.

    Args:
        live: Knows those that are open.
        actor: Who opens another: all of a user's count together, in whatever organization and with whatever token.
        most: How many.

    Raises:
        WebsocketsExceeded: There is none.
    """
    if live.count(actor) >= most:
        raise WebsocketsExceeded(retry_after_s=_RETRY_S)
