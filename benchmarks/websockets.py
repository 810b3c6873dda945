"""Websockets through a proxy: what idle ones cost, messages that go to and fro, handshakes."""

import asyncio
import gc
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import uvloop

from benchmarks.checks import Wrong
from benchmarks.peers import Client
from benchmarks.processes import cpu_seconds, memory_of
from benchmarks.surroundings import Surroundings
from benchmarks.systems import Running, System

OPENING_AT_ONCE, TALKING, SETTLE_S, HANDSHAKES = 64, 64, 2.0, 2_000
_ECHO_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Idle:
    """What open and silent websockets cost.

    Attributes:
        connections: How many were open, all of which echoed a message afterwards.
        kb_each: Growth of the processes' own memory in KiB, divided by them; the kernel's buffers are not in it.
    """

    connections: int
    kb_each: float


@dataclass(frozen=True, slots=True)
class Talk:
    """One round on websockets; rates are per second of time, the others per second of the system's processor time."""

    messages: float
    messages_per_cpu_second: float
    handshakes: float
    handshakes_per_cpu_second: float


@dataclass(frozen=True, slots=True)
class Sockets:
    """What one system showed; `idle` is empty for one whose memory tells nothing."""

    idle: tuple[Idle, ...]
    talks: tuple[Talk, ...]


async def opened(port: int, tokens: Sequence[str], count: int) -> list[Client]:
    """Open websockets, some at a time.

    Raises:
        Wrong: One was refused.
    """
    loop, clients = asyncio.get_running_loop(), list[Client]()

    async def one_after_another(share: int) -> None:
        for _ in range(share):
            client = Client(tokens[len(clients) % len(tokens)])
            clients.append(client)
            try:
                await loop.create_connection(client.itself, "127.0.0.1", port)
            except OSError as error:
                raise Wrong(f"no connection with {len(clients)} open: {error}") from error
            if not await client.opened:
                raise Wrong(f"a websocket was refused with {len(clients)} open")

    lanes = min(OPENING_AT_ONCE, count)
    try:
        async with asyncio.TaskGroup() as tasks:
            for lane in range(lanes):
                tasks.create_task(one_after_another(count // lanes + (lane < count % lanes)))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return clients


async def closed(clients: Sequence[Client], notice_s: float = 0.5) -> None:
    """Drop connections, and leave the other ends time to notice."""
    for client in clients:
        client.close()
    await asyncio.sleep(notice_s)


async def all_echo(clients: Sequence[Client]) -> None:
    """Send a message over each and wait for its echo.

    Raises:
        Wrong: Some came not back.
    """
    for at in range(0, len(clients), OPENING_AT_ONCE):
        for client in clients[at : at + OPENING_AT_ONCE]:
            client.send()
        await asyncio.sleep(0.01)
    deadline = time.monotonic() + _ECHO_DEADLINE_S
    while silent := sum(client.echoes == 0 for client in clients):
        if time.monotonic() > deadline:
            raise Wrong(f"{silent} of {len(clients)} websockets did not echo")
        await asyncio.sleep(0.05)


async def idle(running: Running, tokens: Sequence[str], counts: Sequence[int]) -> tuple[Idle, ...]:
    """Open ever more websockets on a fresh system and read its memory once they are silent."""
    for token in tokens:  # one at a time: what many would leave behind, later ones could use without growth
        await closed(await opened(running.port, [token], 1), 0)
    await asyncio.sleep(SETTLE_S)
    before = memory_of(running.pids).own
    results, clients = list[Idle](), list[Client]()
    for count in counts:
        clients += await opened(running.port, tokens, count - len(clients))
        await asyncio.sleep(SETTLE_S)
        results.append(Idle(count, (memory_of(running.pids).own - before) / count))
    await all_echo(clients)
    await closed(clients)
    return tuple(results)


async def talk(running: Running, tokens: Sequence[str], seconds: float) -> Talk:
    """Open and drop many websockets, then let a few say a message as soon as the last one is back."""
    cpu, start = cpu_seconds(running.pids), time.perf_counter()
    clients = await opened(running.port, tokens, HANDSHAKES)
    handshake_s, handshake_cpu = time.perf_counter() - start, cpu_seconds(running.pids) - cpu
    await closed(clients[TALKING:])
    clients = clients[:TALKING]
    cpu, start = cpu_seconds(running.pids), time.perf_counter()
    end = start + seconds
    for client in clients:
        client.send(lambda: time.perf_counter() < end)
    await asyncio.sleep(seconds)
    messages = sum(client.echoes for client in clients)
    passed, used = time.perf_counter() - start, cpu_seconds(running.pids) - cpu
    await closed(clients)
    return Talk(
        messages / passed, messages / used if used else 0.0, HANDSHAKES / handshake_s, HANDSHAKES / handshake_cpu
    )


def measure(
    systems: Sequence[System], place: Surroundings, counts: Sequence[int], seconds: float, rounds: int
) -> dict[str, Sockets]:
    """Measure each system: idle memory of a fresh one, then interleaved rounds; `direct` is the echo server itself."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # the client's own pauses are nobody's figure
    silent: dict[str, tuple[Idle, ...]] = {}
    for system in systems:
        with system.start(place) as running:
            silent[system.name] = uvloop.run(idle(running, place.tokens, counts))
        told = ", ".join(f"{result.kb_each:.1f} KB at {result.connections:,}" for result in silent[system.name])
        print(f"websockets, idle  {system.name}: {told}", flush=True)
    with ExitStack() as stack:
        running_now = {system.name: stack.enter_context(system.start(place)) for system in systems}
        running_now["direct"] = Running(place.echo, (place.echo_pid,))
        talks = talked(running_now, place.tokens, seconds, rounds)
    return {name: Sockets(silent.get(name, ()), tuple(rows)) for name, rows in talks.items()}


def talked(systems: Mapping[str, Running], tokens: Sequence[str], seconds: float, rounds: int) -> dict[str, list[Talk]]:
    """Run interleaved rounds, after a short one that does not count."""
    results: dict[str, list[Talk]] = {name: [] for name in systems}
    for running in systems.values():
        uvloop.run(talk(running, tokens, 0.5))
    for number in range(rounds):
        for name, running in systems.items():
            result = uvloop.run(talk(running, tokens, seconds))
            results[name].append(result)
            told = f"{result.messages:,.0f} messages/s, {result.handshakes:,.0f} handshakes/s"
            print(f"websockets {number + 1}/{rounds}  {name}: {told}", flush=True)
    return results
