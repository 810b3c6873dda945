"""Programs of other people that tests run: found or named as missing, and waited for."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

DEADLINE_S = 60.0
END_DEADLINE_S = 20.0
_ALSO_IN = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin")  # servers are not on everybody's PATH


def program_named(name: str) -> str:
    """Find a program's path; a missing one fails the test, for a skipped test shows nothing."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_ALSO_IN)))
    assert found, f"{name} is missing: run `make test-edge`, which installs it or says how"
    return found


def until(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Wait, without an event loop, for what another program does in its own time."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def listening(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """Run a server in the foreground until the block ends.

    Args:
        command: Its program and arguments.
        port: Of 127.0.0.1, where it will listen; the block begins then.
        log: Where what it prints goes.
    """
    with log.open("w") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=printed)
    try:
        until(lambda: _listens(port) or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        try:
            process.wait(END_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    """Whether somebody accepts connections there; a connection without a request leaves no line in a server's log."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
