"""Changes of settings are noticed, however a file is replaced."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from config import watch as watch_module
from config.problems import SettingsInvalid
from config.watch import Source, changes, folders_of
from tests.support.settings_files import VALID, write
from tests.support.upstream import until

Act = Callable[[Path], None]


class Watch(Source):
    """A source that is read again whenever it is told to be stale."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, {})
        self.told = self.looks = 0

    def is_stale(self) -> bool:
        self.looks += 1
        return super().is_stale()

    def read(self) -> None:
        with suppress(SettingsInvalid):
            self.load()

    async def run(self) -> None:
        async with aclosing(changes(self)) as found:
            async for _ in found:
                self.told += 1
                await asyncio.to_thread(self.read)

    async def tells_of(self, act: Act, file: Path) -> None:
        """Act, and wait until a change is told."""
        await self._awake(file)
        told = self.told
        await asyncio.to_thread(act, file)
        await until(lambda: self.told > told)

    async def _awake(self, file: Path) -> None:
        """Wait until what stirs in the file's folder makes it look: it may be just about to watch other folders."""
        looks, folder = self.looks, next(parent for parent in file.parents if parent.exists())
        async with asyncio.timeout(10):
            while self.looks < looks + 2:
                await asyncio.to_thread((folder / "stirring").write_bytes, os.urandom(8))
                await asyncio.sleep(0.1)


@asynccontextmanager
async def watching(file: Path) -> AsyncIterator[Watch]:
    """Read a settings file, and watch it inside the context."""
    watch = Watch(file)
    await asyncio.to_thread(watch.read)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def never_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else looking now and then would hide that a folder is not watched."""
    monkeypatch.setattr(watch_module, "_LOOK_EVERY_S", 3600.0)


def written_in_place(file: Path) -> None:
    file.write_text(f"{os.urandom(8).hex()}\n")


def renamed_onto(file: Path) -> None:
    other = file.with_name(".next")
    other.write_text(f"{os.urandom(8).hex()}\n")
    other.replace(file)


def removed(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("act", [written_in_place, renamed_onto, removed])
async def test_a_changed_file_is_told(tmp_path: Path, act: Act) -> None:
    file = write(tmp_path, VALID)
    async with watching(file) as watch:
        await watch.tells_of(act, file)


async def test_a_file_that_comes_back_is_told(tmp_path: Path) -> None:
    file = write(tmp_path, VALID)
    async with watching(file) as watch:
        await watch.tells_of(removed, file)
        await watch.tells_of(written_in_place, file)
        await watch.tells_of(renamed_onto, file)


async def test_a_folder_that_comes_later_is_told(tmp_path: Path) -> None:
    file = tmp_path / "later" / "gateway.yaml"

    def make(path: Path) -> None:
        path.parent.mkdir()
        path.write_text("first")

    async with watching(file) as watch:
        await watch.tells_of(make, file)
        await watch.tells_of(written_in_place, file)


def publishing(text: str) -> Act:
    return lambda file: publish(file.parent, text)


def config_map(folder: Path) -> Path:
    """Lay files out as Kubernetes does: a symlink to a folder that is swapped for another."""
    publish(folder, "one")
    (folder / "gateway.yaml").symlink_to("..data/gateway.yaml")
    return folder / "gateway.yaml"


def publish(folder: Path, text: str) -> None:
    version = folder / f"..{text}"
    version.mkdir()
    (version / "gateway.yaml").write_text(text)
    (folder / "..data_tmp").symlink_to(version.name)
    (folder / "..data_tmp").replace(folder / "..data")


async def test_a_config_map_that_is_swapped_is_told_every_time(tmp_path: Path) -> None:
    file = config_map(tmp_path)
    async with watching(file) as watch:
        for text in ("two", "three", "four"):
            await watch.tells_of(publishing(text), file)

            assert file.read_text() == text


async def test_a_symlink_far_above_the_file_is_told(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_in = tmp_path / "releases" / name / "etc"
        write_in.mkdir(parents=True)
        write(write_in, VALID)
    current = tmp_path / "current"
    current.symlink_to("releases/one")

    def swap(_: Path) -> None:
        (tmp_path / "next").symlink_to("releases/two")
        (tmp_path / "next").replace(current)

    async with watching(current / "etc" / "gateway.yaml") as watch:
        await watch.tells_of(swap, current)


async def test_without_watches_it_looks_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_more(*_: object, **__: object) -> AsyncIterator[object]:
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    monkeypatch.setattr(watch_module, "awatch", no_more)
    monkeypatch.setattr(watch_module, "_LOOK_EVERY_S", 0.01)
    file = write(tmp_path, VALID)
    with capture_logs() as logs:
        async with watching(file) as watch:
            await watch.tells_of(written_in_place, file)
            await watch.tells_of(renamed_onto, file)

    assert [line["cause"] for line in logs] == ["No space left on device"]


async def test_other_files_in_the_folder_are_no_reason(tmp_path: Path) -> None:
    file = write(tmp_path, VALID)
    async with watching(file) as watch:
        for number in range(5):
            await asyncio.to_thread((tmp_path / f"other-{number}").write_text, "x")
        await watch.tells_of(renamed_onto, file)

        assert watch.told == 1


async def test_files_that_are_named_count_and_those_that_change_together_are_told_once(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    certificate = config_map(elsewhere)
    key = certificate.with_name("other-name")
    key.symlink_to(certificate.name)
    file = write(tmp_path, VALID + f"tls: {{certificate: {certificate}, key: {key}}}\n")

    async with watching(file) as watch:
        await watch.tells_of(publishing("two"), certificate)
        await watch.tells_of(renamed_onto, key)

        assert watch.told == 2


async def test_what_changed_after_it_was_read_and_before_it_was_watched_is_told(tmp_path: Path) -> None:
    watch = Watch(write(tmp_path, VALID))
    await asyncio.to_thread(watch.read)
    await asyncio.to_thread(written_in_place, watch.path)
    async with aclosing(changes(watch)) as found:
        await asyncio.wait_for(anext(found), 10)


async def test_what_was_read_again_already_is_no_news(tmp_path: Path) -> None:
    def change_and_read(file: Path) -> None:
        renamed_onto(file)
        watch.read()

    async with watching(write(tmp_path, VALID)) as watch:
        await asyncio.to_thread(change_and_read, watch.path)
        told = watch.told
        await watch.tells_of(renamed_onto, watch.path)

        assert watch.told == told + 1


def test_folders_are_those_of_every_link_and_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "real").write_text("x")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b" / "real")
    (tmp_path / "short").symlink_to("a")

    found = folders_of(tmp_path / "short" / "link")

    assert found == {tmp_path, tmp_path / "a", tmp_path / "b"}


def test_folder_of_a_way_that_does_not_exist_is_where_it_ends(tmp_path: Path) -> None:
    assert folders_of(tmp_path / "no" / "such" / "file") == {tmp_path}


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")

    assert folders_of(tmp_path / "one") == {tmp_path}


def test_a_way_up_is_followed_from_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "file").write_text("x")
    (tmp_path / "link").symlink_to("deep/er")

    assert folders_of(tmp_path / "link" / ".." / "file") == {tmp_path, tmp_path / "deep"}


def test_a_relative_name_counts_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert folders_of(Path("gateway.yaml")) == {Path.cwd()}


def test_every_file_that_settings_name_counts(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "redis__url").write_text("redis://127.0.0.1")
    (secrets / "unrelated").write_text("x")
    key = tmp_path / "master"
    key.write_text("m" * 20 + "n" * 20)
    text = VALID.replace("secrets:", "#").replace(
        "http://127.0.0.1:9000", "https://a.example\n    ca_file: /etc/ca.pem"
    )
    path = write(tmp_path, text + "tls: {certificate: /etc/tls.pem, key: /etc/tls.key}\n")
    environ = {
        "GW_SECRETS__MASTER_KEY_FILE": str(key),
        "GW_SECRETS_DIR": str(secrets),
        "GW_LISTEN": "127.0.0.1:0",
        "OTHER_FILE": "/etc/other",
    }
    source = Source(path, environ)

    source.load()
    files = source.files()

    assert files == {
        path,
        key,
        secrets,
        secrets / "redis__url",
        Path("/etc/ca.pem"),
        Path("/etc/tls.pem"),
        Path("/etc/tls.key"),
    }
