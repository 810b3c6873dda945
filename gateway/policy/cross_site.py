"""The cross-site rule: browsers attach cookies to other sites' requests, so a cookie alone does not show intent."""

from gateway.errors import CrossSite
from gateway.policy.origins import normalised_origin

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({b"same-origin", b"same-site", b"none"})


def check_cross_site(
    method: str,
    is_upgrade: bool,
    origin: bytes | None,
    sec_fetch_site: bytes | None,
    allowed_origins: frozenset[bytes],
) -> None:
    """Return when a request with a cookie credential may act; other carriers need no such check.

    Args:
        method: As sent.
        is_upgrade: It asks for a websocket, which no same-origin policy guards, whatever the method.
        origin: The Origin field; None when absent. If present, it alone decides.
        sec_fetch_site: The Sec-Fetch-Site field (W3C Fetch Metadata); None when absent.
        allowed_origins: The public origin and the authorized parties, as `compile_origins` gives them.

    Raises:
        CrossSite: Nothing shows that the request comes from a page of ours.
    """
    if method in SAFE_METHODS and not is_upgrade:
        return
    if origin is not None:
        if normalised_origin(origin) not in allowed_origins:
            raise CrossSite("origin_foreign")
    elif sec_fetch_site not in _OWN_SITES:
        raise CrossSite("origin_missing" if sec_fetch_site is None else "fetch_site_foreign")
