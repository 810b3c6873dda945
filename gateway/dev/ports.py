"""Loopback ports: the same as last time when they are free."""

import errno
import socket

LOOPBACK = "127.0.0.1"
_NOT_OURS = (errno.EADDRINUSE, errno.EACCES)


def listening_socket(port: int) -> socket.socket:
    """Listen on a loopback TCP port; 0 lets the system choose.

    It listens at once: Linux lets two sockets bind one port with SO_REUSEADDR, and only listening tells them apart.

    Raises:
        OSError: The port is taken or not ours to take.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Connections of an earlier run that linger must not keep the port from us.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def port_of(listener: socket.socket) -> int:
    """Tell the port a loopback socket is bound to."""
    return int(listener.getsockname()[1])


def listening_socket_preferring(port: int) -> socket.socket:
    """Listen on this port, or on any when it is taken or 0."""
    try:
        return listening_socket(port)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        return listening_socket(0)


def listening_socket_searching(first: int, tries: int) -> socket.socket | None:
    """Listen on the first free one of `tries` ports from `first` on; 0 takes any port; None: all are taken."""
    for port in range(first, min(first + tries, 65536)):
        try:
            return listening_socket(port)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
    return None
