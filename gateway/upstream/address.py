"""Where an upstream listens, and the dial: TCP, TLS over TCP, or a Unix socket."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from gateway.upstream.connection import UpstreamConnection

_UNIX = "unix:"
_BACKLOG_FULL_S = 0.01
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class UpstreamAddress:
    """One place to dial.

    Attributes:
        host: Name or IP address without brackets; empty for a Unix socket.
        port: Its port; 0 for a Unix socket.
        path: Of a Unix socket, else None.
        tls: Makes it TLS, with verification.
        server_name: Name the certificate must hold (and SNI); None: `host`.
    """

    host: str = ""
    port: int = 0
    path: str | None = None
    tls: ssl.SSLContext | None = None
    server_name: str | None = None


def parse_addresses(
    urls: Sequence[str], *, tls: ssl.SSLContext | None = None, server_name: str | None = None
) -> tuple[UpstreamAddress, ...]:
    """Take apart addresses as the settings have them: `http://host:port`, `https://host:port`, `unix:/path`.

    Args:
        urls: In their normal form (`config.grammar.parse_upstream_url`).
        tls: For those that are `https`.
        server_name: Expected of all of them.

    Raises:
        ValueError: An `https` address without a context: it must never be dialled in the clear.
    """
    found = []
    for url in urls:
        if url.startswith(_UNIX):
            found.append(UpstreamAddress(path=url.removeprefix(_UNIX)))
            continue
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        if secure and tls is None:
            raise ValueError("an https upstream needs a TLS context")
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        found.append(
            UpstreamAddress(host, port, tls=tls, server_name=server_name.strip("[]") if server_name else None)
            if secure
            else UpstreamAddress(host, port)
        )
    return tuple(found)


async def dial(
    address: UpstreamAddress, make: Callable[[], UpstreamConnection], deadline_s: float
) -> UpstreamConnection:
    """Open a connection, with TLS wholly negotiated and verified.

    Args:
        address: Where to.
        make: Makes the connection's protocol.
        deadline_s: Seconds this may take.

    Raises:
        OSError: Refused, unresolvable, not verified (`ssl.SSLError`).
        UnicodeError: A name no resolver takes.
        TimeoutError: Not within the deadline.
    """
    loop, factory = asyncio.get_running_loop(), cast(Callable[[], asyncio.Protocol], make)
    async with asyncio.timeout(deadline_s):
        if address.path is not None:
            return cast(UpstreamConnection, await _dial_unix(loop, address.path, factory))
        if address.tls is None:
            _, connection = await loop.create_connection(factory, address.host, address.port)
            return cast(UpstreamConnection, connection)
        _, connection = await loop.create_connection(
            factory,
            address.host,
            address.port,
            ssl=address.tls,
            server_hostname=address.server_name or address.host,
            ssl_handshake_timeout=deadline_s,
        )
        return cast(UpstreamConnection, connection)


async def _dial_unix(
    loop: asyncio.AbstractEventLoop, path: str, factory: Callable[[], asyncio.Protocol]
) -> asyncio.Protocol:
    while True:
        try:
            _, connection = await loop.create_unix_connection(factory, path)
        except BlockingIOError:
            # The server's backlog is full. TCP would wait by itself; a Unix socket says so at once (connect(2)).
            await asyncio.sleep(_BACKLOG_FULL_S)
        else:
            return connection
