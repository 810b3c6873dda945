"""Who the client is when proxies stand between: forwarding fields count only from peers the settings name.

From anybody else they are dropped unread (`edge/fields.py` lifts them out of what goes up), and the upstream receives
what we saw ourselves.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from gateway.edge.host import Host, parse_host
from gateway.errors import HostInvalid

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# One hop: an address, perhaps with a port (Azure's gateways add it), IPv6 in brackets or, without a port, bare.
_HOP = re.compile(
    rb"([0-9.]{7,15})(?::[0-9]{1,5})?|\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?|([0-9A-Fa-f:.]{2,45})",
)
# Traefik names a websocket's scheme after it.
_SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
_PORT = re.compile(rb"[0-9]{1,5}")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The forwarding fields as received, unproven.

    Attributes:
        for_: Values of all X-Forwarded-For fields, in order.
        proto: X-Forwarded-Proto; like the following None unless it came exactly once.
        host: X-Forwarded-Host.
        port: X-Forwarded-Port.
        request_id: X-Request-Id.
    """

    for_: tuple[bytes, ...] = ()
    proto: bytes | None = None
    host: bytes | None = None
    port: bytes | None = None
    request_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class ClientView:
    """What we believe of the client, and tell the upstream in `X-Forwarded-*`.

    Attributes:
        address: IP address without port; empty for a peer on a Unix socket.
        scheme: `http` or `https`, as the client used it.
        host: Host as the client named it, a port included when it did.
        port: Port the client used.
        request_id: Of a trusted proxy, 1 to 128 characters; None: make one.
        lines: The `X-Forwarded-*` lines the upstream receives, each with its CRLF.
    """

    address: str
    scheme: str
    host: bytes
    port: int
    request_id: str | None = None
    lines: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Port: %d\r\n"
        values = (self.address.encode("ascii"), self.scheme.encode("ascii"), self.host, self.port)
        object.__setattr__(self, "lines", lines % values)


class ForwardingTrust:
    """The peers whose forwarding fields are read."""

    __slots__ = ("_networks", "trusts")

    def __init__(self, networks: Sequence[Network]) -> None:
        """Remember the networks.

        Raises:
            ValueError: A network of everybody: then any client could choose its address.
        """
        if any(network.prefixlen == 0 for network in networks):
            raise ValueError("name the proxies' own networks: 0.0.0.0/0 and ::/0 trust every client")
        self._networks = tuple(networks)
        # Proxies are few and ask often: each address is compared with the networks once (and 4096 are kept).
        self.trusts = lru_cache(maxsize=4096)(self._judge)

    def _judge(self, address: str) -> bool:
        plain = _plain_address(address)
        return bool(plain) and any(ipaddress.ip_address(plain) in network for network in self._networks)

    def read(self, peer: str, scheme: str, host: Host, forwarded: Forwarded) -> ClientView:
        """Tell address, scheme, host and port the client used.

        A forwarding value that cannot be read counts as absent, it never refuses a request: a trusted proxy's
        mistake is not the client's.

        Args:
            peer: Address of the connection's other end; empty for a Unix socket, which is trusted by nobody's word.
            scheme: Of the connection itself, `http` or `https`.
            host: The Host field.
            forwarded: Forwarding fields as received.
        """
        if not self._networks or not self.trusts(peer):
            return _own_view(peer, scheme, host.raw, host.port)
        told_scheme = _SCHEMES.get((forwarded.proto or b"").lower(), scheme)
        told_host = _told_host(forwarded.host) or host
        port = _told_port(forwarded.port) or told_host.port or _DEFAULT_PORTS[told_scheme]
        address = self._client_address(peer, forwarded.for_)
        return ClientView(address, told_scheme, told_host.raw, port, _told_request_id(forwarded.request_id))

    def _client_address(self, peer: str, values: tuple[bytes, ...]) -> str:
        """The first untrusted address from the right; the leftmost when all are trusted; `peer` if unreadable.

        Whatever stands left of the first untrusted hop was written by that hop, so it is not even looked at.
        """
        address = _plain_address(peer)
        for hop in reversed(b",".join(values).split(b",")) if values else ():
            match = _HOP.fullmatch(hop.strip(b" \t"))
            address = _plain_address((match[1] or match[2] or match[3]).decode("ascii")) if match is not None else ""
            if not address:
                return _plain_address(peer)
            if not self.trusts(address):
                break
        return address


@lru_cache(maxsize=4096)
def _own_view(peer: str, scheme: str, host: bytes, port: int | None) -> ClientView:
    """What we saw ourselves: the same for every request of a connection, so it is written once."""
    return ClientView(_plain_address(peer), scheme, host, port or _DEFAULT_PORTS[scheme])


@lru_cache(maxsize=4096)
def _plain_address(text: str) -> str:
    """Spell an address in its one form; empty when it is none.

    A dual-stack socket shows IPv4 peers as `::ffff:192.0.2.1`: they are the IPv4 address the settings name. A zone
    (`fe80::1%eth0`) means nothing outside this machine.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _told_host(value: bytes | None) -> Host | None:
    try:
        return parse_host(value) if value is not None else None
    except HostInvalid:
        return None


def _told_port(value: bytes | None) -> int | None:
    """A port from 1 to 65535, else None."""
    if value is None or _PORT.fullmatch(value) is None:
        return None
    port = int(value)
    return port if 0 < port <= 65535 else None


def _told_request_id(value: bytes | None) -> str | None:
    return value.decode("ascii") if value is not None and _REQUEST_ID.fullmatch(value) else None
