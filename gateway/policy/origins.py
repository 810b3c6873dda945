"""Web origins in one normal form, so that comparing them is comparing bytes (RFC 6454 §4)."""

import re
from collections.abc import Iterable

from config.values import is_host

# The scheme is open: native shells send `capacitor://localhost`, extensions `chrome-extension://…`.
_ORIGIN = re.compile(
    rb"([A-Za-z][A-Za-z0-9+.-]{0,31})://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?"
)
_DEFAULT_PORTS = {b"http": 80, b"https": 443}


def normalised_origin(raw: bytes) -> bytes | None:
    """Spell an origin in lower case and without its scheme's default port; None for `null` and all that is no origin.

    A path, a user, a list or a dot at the end of the host make it no origin.
    """
    match = _ORIGIN.fullmatch(raw)
    if match is None:
        return None
    scheme, host = match[1].lower(), match[2].lower()
    if host.endswith(b".") or not is_host(host.decode("ascii")):
        return None
    if match[3] is None:
        return b"%b://%b" % (scheme, host)
    port = int(match[3])
    if port > 65535:
        return None
    return b"%b://%b" % (scheme, host) if port == _DEFAULT_PORTS.get(scheme) else b"%b://%b:%d" % (scheme, host, port)


def compile_origins(texts: Iterable[str]) -> frozenset[bytes]:
    """Normal forms of configured origins.

    What is no origin (`*` among it) can never equal one, so it is left out: fewer are allowed, never more.
    """
    normal = (normalised_origin(text.encode()) for text in texts)
    return frozenset(origin for origin in normal if origin is not None)
