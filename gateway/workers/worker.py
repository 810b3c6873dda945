"""One worker, from its interpreter's start to its end: `python -m gateway.workers.worker FRAMES LISTENERS`.

Its two arguments are descriptors of socket pairs; whatever else it must know comes through them. It ends by a drain on
SIGTERM, and when its supervisor is gone, however that happened.
"""

import asyncio
import os
import signal
import socket
import sys

import structlog
import uvloop

from config.watch import Source
from gateway.app import Working, settle_garbage, working
from gateway.errors import GatewayError
from gateway.reload import reloading
from gateway.report import failure_text
from gateway.telemetry.logs import configure_logs
from gateway.telemetry.merged import families_of
from gateway.workers.channel import Channel, Message, Orders, receive_listener, receive_orders
from provisioning.background import end_tasks
from provisioning.errors import ProvisioningError

_log = structlog.get_logger()


def main() -> None:
    """Work until the end; exit code 0 after a drain, 1 when the start fails."""
    frames, listeners = (socket.socket(fileno=int(argument)) for argument in sys.argv[1:3])
    try:
        orders = receive_orders(frames)
        listener = receive_listener(listeners)
    except (EOFError, OSError):  # the supervisor died meanwhile
        sys.exit(1)
    configure_logs(worker=orders.index)
    sys.exit(uvloop.run(work(orders, frames, listeners, listener)))


async def work(orders: Orders, frames: socket.socket, listeners: socket.socket, listener: socket.socket) -> int:
    """Listen until SIGTERM, or until the supervisor is gone; gives the exit code."""
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number, event in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGHUP, reload)):
        loop.add_signal_handler(number, event.set)
    source = Source(orders.config, os.environ)
    channel = await Channel.over(frames)
    try:
        async with working(orders.settings, listener, orders.database_url) as gateway:
            settle_garbage()
            obeying = asyncio.create_task(_Obedience(channel, gateway, listeners, stop).obey())
            _log.info("worker listening", pid=os.getpid())
            channel.send({"event": "listening", "reloads": True})
            async with reloading(gateway.reloader, source, reload, watch=False):  # the supervisor watches for all
                await stop.wait()
            _log.info("worker draining", pid=os.getpid(), grace_s=gateway.reloader.current.settings.drain_grace)
            channel.send({"event": "draining"})
        channel.send({"samples": families_of(gateway.watched.registry)})
        await end_tasks(obeying)
    except (OSError, GatewayError, ProvisioningError) as error:
        channel.send({"event": "failed", "message": failure_text(error)})
        return 1
    finally:
        await channel.close()
    return 0


class _Obedience:
    """Does what the supervisor says."""

    def __init__(self, channel: Channel, gateway: Working, listeners: socket.socket, stop: asyncio.Event) -> None:
        self._channel = channel
        self._gateway = gateway
        self._listeners = listeners
        self._stop = stop
        self._adopted: dict[int, socket.socket] = {}
        self._checking: set[asyncio.Task[None]] = set()

    async def obey(self) -> None:
        """Until the supervisor is gone: then a worker has nobody to work for, and ends."""
        try:
            async for message in self._channel.messages():
                await self._do(message)
        finally:
            self._stop.set()

    async def _do(self, message: Message) -> None:
        match message["do"]:
            case "samples":
                families = families_of(self._gateway.watched.registry)
                self._channel.send({"id": message["id"], "samples": families})
            case "checks":  # in a task: they may wait, and nothing else should
                task = asyncio.create_task(self._check(message))
                self._checking.add(task)
                task.add_done_callback(self._checking.discard)
            case "adopt":
                await self._adopt(message["socket"])
            case "release":
                if (listener := self._adopted.pop(message["socket"], None)) is not None:
                    self._gateway.doors.close(listener)
            case unknown:
                raise ValueError(f"the supervisor says {unknown!r}, which no worker knows")

    async def _check(self, message: Message) -> None:
        self._channel.send({"id": message["id"], "checks": await self._gateway.watched.checked()})

    async def _adopt(self, number: int) -> None:
        listener = receive_listener(self._listeners)
        if self._stop.is_set():
            listener.close()
            return
        self._adopted[number] = listener
        await self._gateway.doors.open(listener)


if __name__ == "__main__":
    main()
