"""What `gateway dev` keeps between two starts: keys, secrets and ports, in one folder of the user's."""

import contextlib
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.dev.tokens import Mint, SigningKey

_PORTS = range(1, 65536)


class DevFailed(Exception):
    """`gateway dev` cannot go on; the message is one sentence that says what to do."""


def default_data_dir() -> Path:
    """Name the folder used when none is given: the platform's for data of the user's."""
    chosen = Path(os.environ.get("XDG_DATA_HOME", ""))
    if chosen.is_absolute():  # XDG Base Directory: a relative path is to be ignored
        base = chosen
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path.home() / ".local" / "share"
    return base / "actorgate" / "dev"


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of the last start. The issuer's is part of every token and cookie name, so it should not move.

    Attributes:
        demo: Of the demo upstream; kept even while `--upstream` replaces it.
    """

    gateway: int
    issuer: int
    demo: int

    @property
    def issuer_url(self) -> str:
        """Exact `iss` of the local issuer."""
        return f"http://127.0.0.1:{self.issuer}"

    @property
    def gateway_origins(self) -> tuple[str, str]:
        """Origins a browser may have the gateway under; the first is the one we print."""
        return f"http://127.0.0.1:{self.gateway}", f"http://localhost:{self.gateway}"


@dataclass(frozen=True, slots=True)
class DevFolder:
    """The folder, mode 0700; what we write in it has mode 0600."""

    path: Path

    def prepare(self) -> None:
        """Make the folder and everything that is made once.

        Raises:
            DevFailed: It cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)
            self._keep("signing_key.pem", lambda: SigningKey.generate().pem)
            self._keep("master_key", lambda: secrets.token_urlsafe(48).encode())
            self._keep("secret_key", lambda: f"sk_test_{secrets.token_urlsafe(32)}".encode())
        except OSError as error:
            raise DevFailed(
                f"cannot write to {self.path} ({error.strerror}); choose another with --data-dir"
            ) from error

    def signing_key(self) -> SigningKey:
        """Read the issuer's key.

        Raises:
            DevFailed: `gateway dev` never ran here, or the file is not a key.
        """
        try:
            return SigningKey.from_pem(self._read("signing_key.pem"))
        except ValueError as error:
            raise DevFailed(f"{self.path / 'signing_key.pem'} is not an RSA key; delete it and start again") from error

    def master_key(self) -> str:
        """Read the gateway's master key (raises DevFailed like `signing_key`)."""
        return self._read("master_key").decode()

    def secret_key(self) -> str:
        """Read the key of the local Backend API, `sk_test_…` (raises DevFailed like `signing_key`)."""
        return self._read("secret_key").decode()

    def ports(self) -> Ports | None:
        """Read the ports of the last start; None when there was none or the file says nonsense."""
        try:
            said = json.loads((self.path / "ports.json").read_bytes())
            ports = Ports(said["gateway"], said["issuer"], said["demo"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return ports if all(type(port) is int and port in _PORTS for port in asdict(ports).values()) else None

    def remember(self, ports: Ports) -> None:
        """Keep the ports for the next start and for `gateway dev-token`."""
        self._write("ports.json", json.dumps(asdict(ports)).encode())

    def mint(self) -> Mint:
        """Build the mint of the last start.

        Raises:
            DevFailed: `gateway dev` never ran with this folder.
        """
        ports = self.ports()
        if ports is None:
            raise DevFailed(f"nothing in {self.path} yet; run `gateway dev` once first, with the same --data-dir")
        return Mint(self.signing_key(), ports.issuer_url, ports.gateway_origins[0])

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise DevFailed(f"cannot read {self.path / name} ({error.strerror}); run `gateway dev` first") from error

    def _keep(self, name: str, make: Callable[[], bytes]) -> None:
        if not (self.path / name).exists():
            self._write(name, make())

    def _write(self, name: str, content: bytes) -> None:
        """Write through a temporary file, which `mkstemp` makes 0600: nobody ever sees half a key, or an open one."""
        descriptor, temporary = tempfile.mkstemp(dir=self.path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(temporary).replace(self.path / name)
        except OSError:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
