"""The embedded PostgreSQL: a foreground child of this process that never outlives it.

Facts it rests on, each seen: `PR_SET_PDEATHSIG` fires when the forking *thread* dies, so `start` must be awaited on a
thread that lives as long as the server (the main thread); PostgreSQL refuses to run as root, so root lends it the
user `nobody`; a socket path over 107 bytes is refused, so sockets live in a short folder of their own.
"""

import asyncio
import ctypes
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import asyncpg

from provisioning.database.binaries import Binaries, copied, find_binaries, reachable
from provisioning.database.leftovers import end_previous_server, remove_folders
from provisioning.errors import EmbeddedPostgresFailed

USER = "gateway"
DATABASE = "gateway"
TEMPORARY_PREFIX = "gw-"
START_TIMEOUT_S = 60.0
FAST_STOP_S = 1.5
HARD_STOP_S = 3.0
_POLL_S = 0.02
_PR_SET_PDEATHSIG = 1

DEFAULT_OPTIONS: Mapping[str, str] = {
    "shared_buffers": "64MB",
    "max_connections": "100",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}


@dataclass(frozen=True, slots=True)
class _Site:
    """What one start has settled on.

    Attributes:
        owner: User and group the server runs as; None: as ourselves.
    """

    binaries: Binaries
    pgdata: Path
    sockets: Path
    owner: tuple[int, int] | None

    @property
    def log(self) -> Path:
        """What the programs say, of the latest start alone."""
        return self.pgdata.with_suffix(".log")

    def data_argument(self, folder: Path) -> str:
        """Name `folder` to a program that works inside it.

        Through `/proc/self/cwd` the user whom root lends needs no way through the folders above: /root is closed.
        """
        return "/proc/self/cwd" if self.owner is not None and _finds_itself_by_cwd(self.binaries) else str(folder)


class EmbeddedPostgres:
    """Runs PostgreSQL over one data folder, reached by a Unix socket that only its user and root may enter.

    Use as `async with EmbeddedPostgres(folder) as postgres:` from the main thread. The cluster is `<folder>/pg18`,
    the server's messages are in `<folder>/pg18.log`. One process at a time may use the folder.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        options: Mapping[str, str] | None = None,
        port: int | None = None,
        binaries: Binaries | None = None,
    ) -> None:
        """Settle what to run; nothing is touched yet.

        Args:
            data_dir: Made when missing.
            options: Server settings, over `DEFAULT_OPTIONS`.
            port: Also listen on this port of 127.0.0.1, open to every local user: for tests.
            binaries: PostgreSQL to run; None finds one.
        """
        self._data_dir = data_dir.absolute()
        self._options = {**DEFAULT_OPTIONS, **(options or {})}
        self._port = port
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._temporary: list[Path] = []
        self._sockets: Path | None = None

    @property
    def url(self) -> str:
        """DSN over the Unix socket, for a started server."""
        if self._sockets is None:
            raise EmbeddedPostgresFailed("the embedded PostgreSQL is not running")
        return f"postgresql://{USER}@/{DATABASE}?host={self._sockets}&port={self._port or 5432}"

    @property
    def tcp_url(self) -> str:
        """DSN over 127.0.0.1; needs `port`."""
        return f"postgresql://{USER}@127.0.0.1:{self._port}/{DATABASE}?sslmode=disable"

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._process.pid if self._process else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Make the cluster if there is none, start the server, and wait until it answers.

        Raises:
            EmbeddedPostgresFailed: It cannot run here; the message says what to do.
        """
        try:
            site = await asyncio.to_thread(self._prepare)
            if not await asyncio.to_thread((site.pgdata / "PG_VERSION").exists):
                await self._make_cluster(site)
            self._process = await self._spawn(site, self._server_command(site), site.pgdata)
            self._sockets = site.sockets
            await self._until_ready(site, self._process)
        except OSError as error:
            await self.stop()
            raise EmbeddedPostgresFailed(f"the embedded PostgreSQL under {self._data_dir} failed: {error}") from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the server (fast, then at once), and take away what it leaves in the temporary folder."""
        process, self._process, self._sockets = self._process, None, None
        try:
            if process is not None:
                await _end(process)
        finally:
            await asyncio.to_thread(self._release)

    def _prepare(self) -> _Site:
        """Everything before the first child: lock, folders, the remains of an earlier life. Blocks."""
        binaries = self._binaries or find_binaries()
        pgdata = self._data_dir / f"pg{binaries.major}"
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            self._take_lock(pgdata.with_suffix(".lock"))
        except PermissionError as error:
            raise EmbeddedPostgresFailed(
                f"{self._data_dir} cannot be written by this user; set data_dir to a folder of your own"
            ) from error
        end_previous_server(pgdata)
        owner = _owner_for(pgdata)
        if owner is None:
            _check_own_user(pgdata)
        else:
            _check_reachable(self._data_dir, owner, binaries)
            if not reachable(binaries.folder, *owner):
                binaries = copied(binaries, self._temporary_folder(None))
        return _Site(binaries, pgdata, self._temporary_folder(owner), owner)

    def _take_lock(self, path: Path) -> None:
        """Hold the data folder for ourselves; what the last holder left in the temporary folder is cleared."""
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise EmbeddedPostgresFailed(
                f"another gateway is using {self._data_dir}; stop it, or set data_dir to another folder"
            ) from None
        self._lock = lock
        lock.seek(0)
        remove_folders(lock.read().splitlines(), TEMPORARY_PREFIX)
        lock.truncate(0)

    def _temporary_folder(self, owner: tuple[int, int] | None) -> Path:
        """Make a short-named private folder, noted in the lock file so that the next start can clear it."""
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))
        self._temporary.append(folder)
        if self._lock is not None:
            self._lock.write(f"{folder}\n")
            self._lock.flush()
        if owner is not None:
            os.chown(folder, *owner)
        return folder

    def _release(self) -> None:
        for folder in self._temporary:
            shutil.rmtree(folder, ignore_errors=True)
        self._temporary.clear()
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    async def _make_cluster(self, site: _Site) -> None:
        """Run initdb beside the final place and move the result in, so that a crash leaves no half cluster."""
        fresh = site.pgdata.with_suffix(".new")
        await asyncio.to_thread(_make_empty, fresh, site.owner)
        builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        command = [str(site.binaries.folder / "initdb"), "-D", site.data_argument(fresh), "-U", USER]
        command += ["-A", "trust", "-E", "UTF8", "-N", "--no-instructions"]
        command += builtin if site.binaries.major >= 17 else ["--locale=C.UTF-8"]
        process = await self._spawn(site, command, fresh)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                code = await _ended(process)
        except TimeoutError:
            code = -1
        finally:
            await _end(process)
        if code != 0:
            raise EmbeddedPostgresFailed(f"initdb failed under {self._data_dir}: {await self._last_words(site)}")
        await asyncio.to_thread(fresh.rename, site.pgdata)

    def _server_command(self, site: _Site) -> list[str]:
        options = {
            **self._options,
            "listen_addresses": "127.0.0.1" if self._port else "",
            "port": str(self._port or 5432),
            "unix_socket_directories": str(site.sockets),
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [str(site.binaries.folder / "postgres"), "-D", site.data_argument(site.pgdata), *settings]

    async def _spawn(self, site: _Site, command: list[str], folder: Path) -> subprocess.Popen[bytes]:
        """Fork on this thread. `Popen` rather than the loop's own way: every event loop behaves alike with it."""
        log = await asyncio.to_thread(site.log.open, "wb")
        uid, gid = site.owner or (None, None)
        try:
            return subprocess.Popen(  # noqa: ASYNC220,S603 - see above; the command is ours alone
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"LC_ALL": "C", "PATH": "/usr/bin:/bin", "TZ": "UTC"},
                user=uid,
                group=gid,
                extra_groups=[] if site.owner else None,
                start_new_session=True,  # Ctrl-C reaches the terminal's whole group; only we decide when this ends
                preexec_fn=die_with_parent(),
            )
        finally:
            log.close()

    async def _until_ready(self, site: _Site, process: subprocess.Popen[bytes]) -> None:
        """Wait for the first answer and make our database."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                connection = await self._first_connection(site, process)
        except TimeoutError:
            raise EmbeddedPostgresFailed(f"PostgreSQL did not become ready: {await self._last_words(site)}") from None
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f'CREATE DATABASE "{DATABASE}"')
        finally:
            await connection.close()

    async def _first_connection(
        self, site: _Site, process: subprocess.Popen[bytes]
    ) -> "asyncpg.Connection[asyncpg.Record]":
        while True:
            if process.poll() is not None:
                raise EmbeddedPostgresFailed(
                    f"PostgreSQL ended at once under {self._data_dir}: {await self._last_words(site)}"
                )
            try:
                return await asyncpg.connect(
                    host=str(site.sockets), port=self._port or 5432, user=USER, database="postgres", password=""
                )
            except (OSError, asyncpg.PostgresError):  # not listening yet, or still starting
                await asyncio.sleep(_POLL_S)

    async def _last_words(self, site: _Site) -> str:
        """Quote the last two lines of the log, which is where PostgreSQL says why."""
        text = await asyncio.to_thread(site.log.read_text, errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return " / ".join(lines[-2:]) or "it said nothing"


def _owner_for(pgdata: Path) -> tuple[int, int] | None:
    """Who must run the server: root lends the cluster's owner, or `nobody` for a new one; others run it themselves."""
    if os.geteuid() != 0:
        return None
    if pgdata.exists() and pgdata.stat().st_uid != 0:
        return pgdata.stat().st_uid, pgdata.stat().st_gid
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedPostgresFailed(
            "PostgreSQL refuses to run as root and there is no user nobody; run as a normal user, or set database.url"
        ) from None
    return nobody.pw_uid, nobody.pw_gid


def _check_own_user(pgdata: Path) -> None:
    uid = os.geteuid()
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedPostgresFailed(
            f"user id {uid} has no entry in the password database, which PostgreSQL needs; set database.url instead"
        ) from None
    if pgdata.exists() and pgdata.stat().st_uid != uid:
        raise EmbeddedPostgresFailed(f"{pgdata} belongs to another user; set data_dir to a folder of your own")


def _finds_itself_by_cwd(binaries: Binaries) -> bool:
    """Whether the working directory can stand for the data folder. Before 16, programs leave it to find themselves."""
    return sys.platform == "linux" and binaries.major >= 16


def _check_reachable(data_dir: Path, owner: tuple[int, int], binaries: Binaries) -> None:
    if not _finds_itself_by_cwd(binaries) and not reachable(data_dir, *owner):
        raise EmbeddedPostgresFailed(
            f"{data_dir} cannot be reached by the user that runs PostgreSQL for root; "
            "set data_dir to a folder that others may enter, or set database.url"
        )


def _make_empty(folder: Path, owner: tuple[int, int] | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    if owner is not None:
        os.chown(folder, *owner)


def die_with_parent(number: signal.Signals = signal.SIGINT) -> Callable[[], None] | None:
    """Make the step between fork and exec that ties the child's life to ours; None where the system cannot (macOS).

    Args:
        number: What the child gets; for PostgreSQL, SIGINT is the fast shutdown.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # we died between fork and here: no signal would come
            os._exit(1)

    return tie


async def _ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for a child by looking: the same on every loop and platform, and no thread waits along."""
    while (code := process.poll()) is None:  # noqa: ASYNC110 - a child's end raises no event of ours
        await asyncio.sleep(_POLL_S)
    return code


async def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask politely, then less so: fast shutdown, immediate shutdown, kill."""
    for ask, patience_s in ((signal.SIGINT, FAST_STOP_S), (signal.SIGQUIT, HARD_STOP_S), (signal.SIGKILL, HARD_STOP_S)):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(ask)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await _ended(process)
