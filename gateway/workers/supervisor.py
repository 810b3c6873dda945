"""The supervisor: holds the ports, keeps the workers alive, and answers operators for all of them.

Each worker listens on a socket of its own; the kernel spreads connections over them. The supervisor holds every socket
open as well, so what waits in a dead worker's socket waits on, and another worker accepts it until the dead one is
replaced (docs/decisions/011-workers.md).
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import structlog

from config.model import Settings
from config.problems import SettingsInvalid
from config.restart import until_restart
from config.watch import Source
from gateway.app import prepare_database, start_admin
from gateway.listen.sockets import address_of, bind, bind_shared
from gateway.reload import ask_when_stale
from gateway.workers.backoff import Backoff
from gateway.workers.channel import Message, Orders
from gateway.workers.overview import Overview
from gateway.workers.process import Phase, Worker
from provisioning.background import end_tasks

_log = structlog.get_logger()
OVERSTAY_S = 6.0
"""Seconds after `drain_grace` before a worker that still runs is killed: its websockets have 3 s of that to close."""


class WorkerFailed(Exception):
    """A worker could not start, when the gateway did; the message is what the worker said."""


async def supervise(settings: Settings, source: Source) -> None:
    """Run several workers until SIGTERM or SIGINT; then let all of them finish, for `drain_grace` at most.

    Args:
        settings: With `workers` above 1.
        source: Where they were read; read again on SIGHUP, and when it changed.

    Raises:
        OSError: A port is taken.
        WorkerFailed: A worker could not start.
        DatabaseUnavailable, MigrationFailed: As with one process.
    """
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number, event in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGHUP, reload)):
        loop.add_signal_handler(number, event.set)
    async with AsyncExitStack() as stack:
        listeners = bind_shared(settings.listen, settings.workers)
        for listener in listeners:
            stack.callback(listener.close)
        admin = bind(settings.admin.listen)
        stack.callback(admin.close)
        crew = Crew(settings, source, listeners, await prepare_database(stack, settings))
        await start_admin(stack, admin, crew.overview.application())
        stack.push_async_callback(crew.stop)
        await crew.start(stop)
        listen = str(address_of(listeners[0]))
        if not stop.is_set():
            _log.info("listening", listen=listen, admin=str(address_of(admin)), pid=os.getpid(), workers=len(listeners))
        tasks = [asyncio.create_task(_reload_on(reload, crew)), asyncio.create_task(ask_when_stale(source, reload))]
        await stop.wait()
        await end_tasks(*tasks, quietly=True)
        _log.info("draining", grace_s=settings.drain_grace)


async def _reload_on(asked: asyncio.Event, crew: "Crew") -> None:
    while True:
        await asked.wait()
        asked.clear()
        await crew.reload()


class Crew:
    """The workers.

    Attributes:
        overview: What operators are told of them.
    """

    def __init__(
        self, settings: Settings, source: Source, listeners: Sequence[socket.socket], database_url: str
    ) -> None:
        """Prepare; nothing is spawned yet.

        Args:
            settings: What workers begin with.
            source: Where the settings were read.
            listeners: One bound socket for each worker.
            database_url: Of the prepared database.
        """
        self._settings = settings
        self._source = source
        self._listeners = tuple(listeners)
        self._database_url = database_url
        self._workers: dict[int, Worker] = {}
        self._keepers: dict[int, Worker] = {}  # who accepts what arrives at a socket, by the socket's place
        self._keeping: list[asyncio.Task[None]] = []
        self._complete = asyncio.Event()
        self._stopping = asyncio.Event()
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.overview = Overview(self._workers)

    async def start(self, stop: asyncio.Event) -> None:
        """Spawn all workers, and wait until all listen, or until `stop`.

        Raises:
            WorkerFailed: One could not start.
        """
        self._keeping = [asyncio.create_task(self._keep(place)) for place in range(len(self._listeners))]
        complete, stopped = (asyncio.create_task(event.wait()) for event in (self._complete, stop))
        waits: list[asyncio.Future[Any]] = [self._failed, complete, stopped]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        complete.cancel()
        stopped.cancel()
        if self._failed.done():
            raise WorkerFailed(self._failed.result())

    async def stop(self) -> None:
        """Let all workers drain at once, and wait for them; those that overstay are killed."""
        self._stopping.set()
        for listener in self._listeners:
            listener.close()  # first: a socket must end with the worker that accepts what still waits in it
        for worker in self._workers.values():
            worker.signal(signal.SIGTERM)
        _, staying = await asyncio.wait(self._keeping, timeout=self._settings.drain_grace + OVERSTAY_S)
        if staying:
            for worker in self._workers.values():
                if worker.phase is not Phase.ENDED:
                    _log.warning("worker killed", worker=worker.index, pid=worker.pid)
                    worker.kill()
        await asyncio.gather(*self._keeping)

    async def reload(self) -> None:
        """Read the settings again, and let every worker do the same; what is wrong changes nothing.

        Workers are told of wrong settings too: it is they who count reloads for operators.
        """
        try:
            wanted = await asyncio.to_thread(self._source.load)
        except SettingsInvalid as invalid:
            _log.error("settings refused, the old ones stay", problems=[str(problem) for problem in invalid.problems])
        else:
            self._settings, _ = until_restart(self._settings, wanted)  # workers spawned from now on begin with it
            if self._settings.database.url is not None:
                self._database_url = self._settings.database.url.get_secret_value()
        for worker in self._workers.values():
            if worker.reloads and worker.phase is Phase.LISTENING:
                worker.signal(signal.SIGHUP)

    async def _keep(self, place: int) -> None:
        """Keep a worker alive in its place."""
        backoff = Backoff()
        while not self._stopping.is_set():
            began = time.monotonic()
            ending, message = await self._live(place)
            if self._stopping.is_set():
                return
            if not self._complete.is_set():
                if not self._failed.done():
                    self._failed.set_result(message or f"worker {place} ended at its start ({ending})")
                return
            lived_s = time.monotonic() - began
            rest_s = backoff.next_s(lived_s)
            self.overview.restarted(ending)
            tell = _log.info if ending == "exit code 0" else _log.error
            facts = {"reason": ending, "message": message, "lived_s": round(lived_s, 1), "rest_s": round(rest_s, 1)}
            tell("worker ended", worker=place, **facts)
            await self._rest(rest_s)

    async def _live(self, place: int) -> tuple[str, str | None]:
        """Run one worker to its end; says how it ended, and what it said of why it cannot start."""
        orders = Orders(place, self._settings, self._source.path, self._database_url)
        try:
            worker = Worker(orders, self._listeners[place], changed=self._changed, heard=self._heard)
        except OSError as error:  # the system is short of something; the next try may do better
            return "exit before its start", f"no process for worker {place}: {error}"
        self._workers[place] = worker
        return await worker.run(), worker.failure

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _heard(self, worker: Worker, message: Message) -> None:
        self.overview.ledger.learn(worker.index, message["samples"])

    def _changed(self, worker: Worker) -> None:
        if worker.phase is Phase.ENDED:
            self.overview.ledger.retire(worker.index)
        if self._stopping.is_set():
            return
        if worker.phase is Phase.LISTENING:
            self._take_own(worker)
            if all(
                place in self._workers and self._workers[place].phase is Phase.LISTENING
                for place in range(len(self._listeners))
            ):
                self._complete.set()
        self._cover()

    def _take_own(self, worker: Worker) -> None:
        """A worker listens on its own socket: whoever stood in for it can leave."""
        keeper = self._keepers.get(worker.index)
        self._keepers[worker.index] = worker
        if keeper is not None and keeper is not worker:
            keeper.release(worker.index)

    def _cover(self) -> None:
        """Let those who listen stand in for those who do not, evenly."""
        listening = [worker for worker in self._workers.values() if worker.phase is Phase.LISTENING]
        self._keepers = {place: keeper for place, keeper in self._keepers.items() if keeper in listening}
        if not listening or not self._complete.is_set():
            return
        for place, listener in enumerate(self._listeners):
            if place not in self._keepers:
                load = [*self._keepers.values()]
                keeper = min(listening, key=load.count)
                keeper.adopt(place, listener)
                self._keepers[place] = keeper
