"""Ports for servers that must be told theirs before they start, or keep it while they are down."""

import fcntl
import os
import secrets
import socket
import tempfile
from pathlib import Path

_FIRST, _COUNT = 10_000, 20_000
_given: set[int] = set()
_lent = os.open(Path(tempfile.gettempdir()) / "gw-test-ports", os.O_RDWR | os.O_CREAT, 0o666)

BACKLOG = 4096
"""As a server has it; with asyncio's 100 a storm of connections waits until TCP asks again, for a second and more."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free, and that no test is given again as long as this process lives.

    From below the range that systems lend by themselves, so nothing that asks for any port, as every outgoing
    connection does, can take it before its server has it. Byte n of a file is locked for port n: processes that run
    tests at the same time see each other's.
    """
    while True:
        port = _FIRST + secrets.randbelow(_COUNT)
        if port in _given or not _is_ours(port):
            continue
        _given.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _is_ours(port: int) -> bool:
    try:
        fcntl.lockf(_lent, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except BlockingIOError:
        return False
    return True
