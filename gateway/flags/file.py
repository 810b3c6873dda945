"""Flags from a file of definitions, which is read again whenever it changes."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from config.watch import Watched, changes
from gateway.flags.definitions import Definition, evaluate, parse
from gateway.flags.provider import DefinitionsInvalid, Facts, Json
from provisioning.background import end_tasks

_log = structlog.get_logger()


class FileFlags:
    """A `FlagProvider`. A file that does not fit, or is gone, leaves in force what was there before."""

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Nothing is read yet.

        Args:
            path: Definitions in flagd's format.
            monotonic: Seconds.
        """
        self._watched = Watched([path])
        self._path = path
        self._monotonic = monotonic
        self._definitions: Mapping[str, Definition] = {}
        self._watching: asyncio.Task[None] | None = None
        self._refused_at: float | None = None
        self.generation = 0
        self.loads: Counter[str] = Counter()

    @property
    def loaded_at(self) -> float | None:
        """Now, while what is in the file is in force; else when it was found not to fit."""
        if not self.generation:
            return None
        return self._monotonic() if self._refused_at is None else self._refused_at

    def evaluate(self, facts: Facts) -> Mapping[str, Json]:
        """See `FlagProvider`."""
        return evaluate(self._definitions, facts)

    async def start(self) -> None:
        """See `FlagProvider`."""
        await self._load()
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """See `FlagProvider`."""
        await end_tasks(self._watching)

    async def _load(self) -> None:
        definitions = await asyncio.to_thread(self._read)
        self._definitions = definitions
        self._refused_at = None
        self.generation += 1
        self.loads["ok"] += 1

    def _read(self) -> Mapping[str, Definition]:
        self._watched.note()  # before it is read: what changes meanwhile is news
        try:
            return parse(self._path.read_text("utf-8"), str(self._path))
        except OSError as error:
            raise DefinitionsInvalid(f"flags.file: {self._path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise DefinitionsInvalid(f"{self._path}: is not UTF-8") from None

    async def _watch(self) -> None:
        async for _ in changes(self._watched):
            try:
                await self._load()
            except DefinitionsInvalid as error:
                if self._refused_at is None:
                    self._refused_at = self._monotonic()
                self.loads["failed"] += 1
                _log.error("flags refused", problems=str(error))
            else:
                _log.info("flags reloaded", flags=len(self._definitions))
