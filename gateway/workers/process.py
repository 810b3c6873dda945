"""The supervisor's side of one worker: its process, and what is said to it and heard from it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from enum import Enum
from pathlib import Path

from gateway.workers.channel import Channel, Message, Orders, packed, pass_listener
from provisioning.database.embedded import die_with_parent

ANSWER_S = 1.0
"""Seconds a worker has for the answer to a question of operators."""
_LEAVE_S = 5.0
"""Seconds between a worker's last word and its end, before it is killed."""
_POLL_S = 0.02


class Phase(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    LISTENING = "listening"
    DRAINING = "draining"
    ENDED = "ended"


class Worker:
    """One worker process.

    Attributes:
        phase: Where it is in its life.
        failure: Why it could not start, as it said itself.
        reloads: It handles SIGHUP.
    """

    def __init__(
        self,
        orders: Orders,
        listener: socket.socket,
        *,
        changed: Callable[["Worker"], None],
        heard: Callable[["Worker", Message], None],
    ) -> None:
        """Spawn it: a fresh interpreter, because a forked event loop would share what must not be shared.

        Args:
            orders: What it needs to know.
            listener: What it listens on; it stays ours as well.
            changed: Called after each change of phase.
            heard: Called with every message that carries figures.

        Raises:
            OSError: No process or descriptor can be had.
        """
        self.index = orders.index
        self.phase = Phase.STARTING
        self.failure: str | None = None
        self.reloads = False
        self._changed = changed
        self._heard = heard
        self._orders: Orders | None = orders
        self._questions: dict[int, asyncio.Future[Message]] = {}
        self._asked = 0
        self._channel: Channel | None = None
        with ExitStack() as stack:
            self._frames, frames = (stack.enter_context(end) for end in socket.socketpair())
            self._listeners, listeners = (stack.enter_context(end) for end in socket.socketpair())
            pass_listener(self._listeners, listener)
            self._process = _spawn(frames.fileno(), listeners.fileno())
            stack.pop_all()
        frames.close()
        listeners.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def run(self) -> str:
        """Listen to it until it has ended; says how: `exit code 1`, `signal SIGKILL`."""
        self._channel = await Channel.over(self._frames)
        if self._orders is not None:
            self._channel.send_frame(packed(self._orders))
            self._orders = None  # secrets: no longer than needed
        async for message in self._channel.messages():
            self._take(message)
        await self._channel.close()
        self._listeners.close()
        code = await self._reaped()
        for question in self._questions.values():
            question.cancel()
        self._enter(Phase.ENDED)
        return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

    def _take(self, message: Message) -> None:
        if "samples" in message:
            self._heard(self, message)
        if (question := self._questions.pop(message.get("id", 0), None)) is not None and not question.done():
            question.set_result(message)
        match message.get("event"):
            case "listening":
                self.reloads = message["reloads"]
                self._enter(Phase.LISTENING)
            case "draining":
                self._enter(Phase.DRAINING)
            case "failed":
                self.failure = message["message"]
            case _:
                pass

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._changed(self)

    async def _reaped(self) -> int:
        """Wait for the end by looking; the channel is closed, so it is near."""
        until = time.monotonic() + _LEAVE_S
        while (code := self._process.poll()) is None:
            if time.monotonic() > until:
                self.kill()
            await asyncio.sleep(_POLL_S)
        return code

    async def ask(self, what: str) -> Message | None:
        """Ask for `samples` or `checks`; None when no answer comes in time."""
        if self._channel is None or self.phase is Phase.ENDED:
            return None
        self._asked += 1
        number = self._asked
        answer = self._questions[number] = asyncio.get_running_loop().create_future()
        self._channel.send({"do": what, "id": number})
        done, _ = await asyncio.wait([answer], timeout=ANSWER_S)
        self._questions.pop(number, None)
        return answer.result() if done and not answer.cancelled() else None

    def adopt(self, number: int, listener: socket.socket) -> None:
        """Let it listen on another worker's socket too."""
        if self._channel is not None:
            try:
                pass_listener(self._listeners, listener)
            except OSError:  # it just died, which its channel will tell
                return
            self._channel.send({"do": "adopt", "socket": number})

    def release(self, number: int) -> None:
        """Let it leave that socket again."""
        if self._channel is not None:
            self._channel.send({"do": "release", "socket": number})

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


def _spawn(*ends: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - the command is ours alone
        # `-P` and our own path: a folder `config` where we were started must not become our package.
        [sys.executable, "-P", "-m", "gateway.workers.worker", *map(str, ends)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
        stdin=subprocess.DEVNULL,
        pass_fds=ends,
        start_new_session=True,  # Ctrl-C reaches the terminal's whole group; only we decide when this ends
        preexec_fn=die_with_parent(signal.SIGTERM),
    )
