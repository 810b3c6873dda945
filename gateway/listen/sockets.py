"""The sockets a gateway listens on: bound before anything else starts, so that a taken port is told at once."""

import socket
from dataclasses import dataclass

from config.values import Address


@dataclass(frozen=True, slots=True)
class Sockets:
    """Bound TCP sockets.

    Attributes:
        public: Where clients connect.
        admin: Where operators connect.
    """

    public: socket.socket
    admin: socket.socket

    def close(self) -> None:
        """Close both; connections that were accepted stay."""
        self.public.close()
        self.admin.close()


def bind_both(public: Address, admin: Address) -> Sockets:
    """Bind the two addresses.

    Raises:
        OSError: One is taken or not ours to take; the message names it.
    """
    first = bind(public)
    try:
        return Sockets(first, bind(admin))
    except OSError:
        first.close()
        raise


def bind_shared(address: Address, count: int) -> tuple[socket.socket, ...]:
    """Bind several sockets to one address; Linux spreads new connections over those that listen.

    Raises:
        OSError: As `bind`, also when somebody else shares the port: with SO_REUSEPORT alone, a second gateway of the
            same user would silently take half of the connections.
    """
    with bind(address) as alone:  # bound until the others are, so that nobody comes between
        place = address_of(alone)
        bound: list[socket.socket] = []
        try:
            for _ in range(count):
                bound.append(bind(place, shared=True))  # noqa: PERF401 - those bound so far must be closed
        except OSError:
            for listener in bound:
                listener.close()
            raise
    return tuple(bound)


def bind(address: Address, *, shared: bool = False) -> socket.socket:
    """Bind without listening; port 0 lets the system choose.

    Args:
        address: Where.
        shared: Let other sockets of this user, shared as well, have the same port.

    Raises:
        OSError: The address is taken or not ours to take; the message names it.
    """
    family, kind, protocol, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # Connections of an earlier run that linger must not keep the port from us.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(place)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def address_of(listener: socket.socket) -> Address:
    """Tell where a socket is bound; the port is the real one also when 0 was asked for."""
    host, port = listener.getsockname()[:2]
    return Address(host, port)
