"""What every measured system stands on: one upstream, one issuer's tokens and keys, one PostgreSQL."""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks import configurations
from benchmarks.processes import LOAD_CORE, allow_many_files, program, started
from benchmarks.scenarios import LARGE_ANSWER, SMALL_ANSWER
from tests.support.clerk_keys import jwks, key_pair, mint_token
from tests.support.ports import free_port
from tests.support.postgres import PostgresPerWorker

USERS, TOKEN_LIFE_S = 50, 6 * 3600
ORGANIZATIONS = 7


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What systems are given.

    Attributes:
        files: Open files that a process may have.
        origin: Port of the upstream, an nginx.
        origin_pid: Its process.
        echo: Port of the upstream of websockets.
        echo_pid: Its process.
        tokens: Of `USERS` people, each in one of a few organizations.
        token_file: The same, one a line.
        postgres: Gives each gateway a database of its own; no part of any system's figures.
    """

    folder: Path
    files: int
    origin: int
    origin_pid: int
    echo: int
    echo_pid: int
    tokens: tuple[str, ...]
    token_file: Path
    public_key: Path
    postgres: PostgresPerWorker

    @property
    def jwks_url(self) -> str:
        return f"http://127.0.0.1:{self.origin}/jwks.json"

    def new_folder(self, name: str) -> Path:
        """A folder for one started system."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))


def token(number: int, session: int | None = None) -> str:
    """Mint a session token as Clerk does for a person in an organization; all are of one length, about 840 bytes.

    Args:
        number: Of the person.
        session: Of the session, when it is not the person's only one.
    """
    organization = number % ORGANIZATIONS
    claims: dict[str, Any] = {
        "o": {"id": f"org_{organization:027d}", "slg": f"team-{organization}", "rol": "admin"},
    }
    return mint_token(
        sub=f"user_{number:027d}",
        sid=f"sess_{number if session is None else session:027d}",
        exp=int(time.time()) + TOKEN_LIFE_S,
        **claims,
    )


def write_tokens(path: Path, tokens: Sequence[str]) -> Path:
    """Write one a line.

    Raises:
        ValueError: They are not of one length, as wrk's script needs them.
    """
    if len({len(text) for text in tokens}) != 1:
        raise ValueError("tokens are of several lengths")
    path.write_text("".join(f"{text}\n" for text in tokens))
    return path


@contextmanager
def surroundings() -> Iterator[Surroundings]:
    """Start them all, on the core of the load."""
    files = allow_many_files()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-bench-")))
        folder.chmod(0o755)  # nginx's worker is another user when root started it
        (folder / "jwks.json").write_bytes(jwks())
        (folder / "large").write_bytes(b"x" * LARGE_ANSWER)
        public = key_pair("main").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / "public.pem").write_bytes(public)
        origin, echo = free_port(), free_port()
        (folder / "origin.conf").write_text(configurations.origin(folder, origin, SMALL_ANSWER, files))
        nginx = [program("nginx"), "-e", "stderr", "-c", str(folder / "origin.conf")]
        origin_pid = stack.enter_context(started(nginx, origin, LOAD_CORE, folder))
        peer = [sys.executable, "-m", "benchmarks.peers", str(echo)]
        echo_pid = stack.enter_context(started(peer, echo, LOAD_CORE, folder))
        postgres = PostgresPerWorker(folder / "postgres")
        stack.callback(postgres.stop)
        postgres.start()
        tokens = tuple(token(number) for number in range(USERS))
        yield Surroundings(
            folder,
            files,
            origin,
            origin_pid,
            echo,
            echo_pid,
            tokens,
            write_tokens(folder / "tokens", tokens),
            folder / "public.pem",
            postgres,
        )
