"""`gateway health`: one question to a running gateway, without aiohttp, so that a container's probe stays cheap."""

import http.client
from urllib.parse import urlsplit

_READY_PATH = "/readyz"
# What one listens on is not always what one can dial.
_DIALLED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound


def probe(url: str, timeout_s: float) -> tuple[bool, str]:
    """Ask the admin port whether the gateway is ready.

    Args:
        url: Address of the admin port; a path other than `/` is asked as it is.
        timeout_s: Longest wait for the dial, and for the answer.

    Returns:
        Whether it is, and one line that says so or why not.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if host is None or parts.scheme != "http":
        return False, "unhealthy: write the address as http://host:port"
    connection = http.client.HTTPConnection(_DIALLED.get(host, host), port, timeout=timeout_s)
    try:
        connection.request("GET", parts.path if parts.path not in {"", "/"} else _READY_PATH)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return False, f"unhealthy: {host}:{port} does not answer ({reason})"
    finally:
        connection.close()
    return (True, "healthy") if status == http.client.OK else (False, f"unhealthy: {host}:{port} answers {status}")
