"""Whether a websocket token may open this one websocket: its own limits, judged on every handshake. Pure."""

from gateway.errors import CredentialRejected
from gateway.policy.origins import normalised_origin
from gateway.verify.principal import Principal


def check_use(principal: Principal, path: str, origin: bytes | None) -> None:
    """Return when a minted token fits the request that brings it.

    Args:
        principal: Of the verified token.
        path: Of the target, as it stands.
        origin: The `Origin` field, None when absent.

    Raises:
        CredentialRejected: `minted_path` or `minted_origin`.
    """
    binding = principal.binding
    if binding is None:
        return
    if binding.path is not None and binding.path != path:
        raise CredentialRejected("minted_path")
    if binding.origin is not None and (origin is None or normalised_origin(origin) != binding.origin.encode()):
        raise CredentialRejected("minted_origin")
