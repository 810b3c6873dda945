"""Where settings come from, so that they can be read again; and notice when that changed.

Folders are watched, not files: whoever replaces a file by renaming another onto it, or swaps a symlink above it (as
Kubernetes does with a ConfigMap), leaves the file that was watched alone. What happens in a folder is only a reason to
look: a change is when a file at one of the names is another than before.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

import structlog
from watchfiles import awatch

from config.environment import secret_files
from config.load import load_settings
from config.model import Settings

_DEBOUNCE_MS = 300
_LOOK_EVERY_S = 5.0
"""Seconds between looks where nobody tells of changes: network folders, or no more watches to be had."""
_LINKS_CAP = 40  # as Linux follows at most
_log = structlog.get_logger()


class Stale(Protocol):
    """What can be out of date because of a file."""

    def files(self) -> frozenset[Path]:
        """Name all files that count. Reads folders."""

    def is_stale(self) -> bool:
        """Tell whether a file is another than when it was last read. Reads files."""


class Watched:
    """Files of which only their being replaced counts."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = frozenset(paths)
        self._seen: dict[Path, _Identity] = {}

    def note(self) -> None:
        """Remember which files are there. Call it in a thread, before their contents are read."""
        self._seen = _identities(self._paths)

    def files(self) -> frozenset[Path]:
        """See `Stale`."""
        return self._paths

    def is_stale(self) -> bool:
        """See `Stale`."""
        return _identities(self._paths) != self._seen


class Source:
    """One settings file with its environment, and what was found there when it was last read."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        """Nothing is read yet.

        Args:
            path: The YAML file.
            environ: `GW_*` variables; a process keeps those it was started with, but files they name are read anew.
        """
        self.path = path
        self._environ = environ
        self._named: frozenset[Path] = frozenset()
        self._seen: dict[Path, _Identity] = {}

    def load(self) -> Settings:
        """Read the settings for serving. Reads files: call it off the loop.

        Raises:
            SettingsInvalid: Any number of problems, each with its place.
        """
        own = _identities(self._own_files())  # before they are read: what changes meanwhile is news
        self._seen = own | _identities(self._named)
        settings = load_settings(self.path, self._environ, for_serve=True)
        self._named = _named_by(settings)
        self._seen = own | _identities(self._named)
        return settings

    def files(self) -> frozenset[Path]:
        """Name all files that count: of the settings, and those that the latest good ones name. Reads folders."""
        return self._own_files() | self._named

    def is_stale(self) -> bool:
        """Tell whether a file is another than when it was last read. Reads files."""
        return _identities(self.files()) != self._seen

    def _own_files(self) -> frozenset[Path]:
        return frozenset({self.path, *secret_files(self._environ)})


def _named_by(settings: Settings) -> frozenset[Path]:
    tls = {settings.tls.certificate, settings.tls.key} if settings.tls is not None else set()
    redis = {settings.redis.ca_file} if settings.redis.ca_file else set()
    return frozenset(tls | redis | {upstream.ca_file for upstream in settings.upstreams.values() if upstream.ca_file})


_Identity = tuple[int, ...] | None


def _identities(paths: Iterable[Path]) -> dict[Path, _Identity]:
    """Tell which file is at each name now; None where there is none."""
    return {path: _identity(path) for path in paths}


def _identity(path: Path) -> _Identity:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


async def changes(source: Stale) -> AsyncGenerator[None, None]:
    """Yield when a source is stale, once for changes in quick succession; again until it is read."""
    told = False
    while True:
        is_stale, folders = await asyncio.to_thread(_look, source)
        if is_stale:
            yield
        try:
            async with aclosing(_stirrings(folders)) as stirrings:
                async for _ in stirrings:
                    is_stale, folders_now = await asyncio.to_thread(_look, source)
                    if is_stale:
                        yield
                    if folders_now != folders:
                        break
        except OSError as error:  # the system's limit of watches; or a folder that went away in this instant
            if not told:
                told = True
                _log.warning("settings are looked at every few seconds, not watched", cause=_why(error))
            await asyncio.sleep(_LOOK_EVERY_S)


def _stirrings(folders: Collection[Path]) -> AsyncGenerator[object, None]:
    """Yield when something happened in one of the folders, and now and then."""
    return awatch(
        *folders,
        recursive=False,
        watch_filter=None,
        debounce=_DEBOUNCE_MS,
        rust_timeout=int(_LOOK_EVERY_S * 1000),
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _look(source: Stale) -> tuple[bool, frozenset[Path]]:
    """Tell whether a source is stale, and in which folders it would show that it becomes so."""
    return source.is_stale(), frozenset(folder for path in source.files() for folder in folders_of(path))


def folders_of(path: Path) -> frozenset[Path]:
    """Find the folders in which a change can put another file at `path`.

    These are the folder of every symlink on the way to it and that of the file itself, or of the first part of the
    way that does not exist. Of a folder, also itself.
    """
    found = set()
    parts = [*reversed(Path.cwd().joinpath(path).parts)]
    here, links = Path(parts.pop()), 0
    while parts:
        step = here / parts.pop()
        if os.path.islink(step) and links < _LINKS_CAP:  # noqa: PTH114 - `Path.is_symlink` raises where one may not look
            found.add(here)
            links += 1
            target = here / step.readlink()  # an absolute target leaves `here` out
            parts += reversed(target.parts[1:])
            here = Path(target.anchor)
        elif not os.path.isdir(step):  # noqa: PTH112 - likewise
            found.add(here)
            break
        else:
            here = Path(os.path.normpath(step))  # `here` is free of links, so `..` is what it says
            if not parts:
                found |= {here, here.parent}
    return frozenset(found)
