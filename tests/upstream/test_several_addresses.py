"""Several addresses and Unix sockets, seen by a client: which of them serve, die and come back."""

import asyncio
import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.upstream.rotation import FIRST_PAUSE_S
from tests.support.gateway import GatewayUnderTest, gateway_under_test
from tests.support.ports import free_port
from tests.support.upstream import answering, recording_upstream, until
from tests.support.wire import request

GET = request("/public/x")
BUSY = 4
"""So few connections that load keeps all in use. One that dies before its first answer is not replayed (the contract
allows that on reused ones alone), and at a larger cap one may just have been made."""


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def several(*urls: str, **more: int) -> dict[str, Any]:
    return {"app": {"url": None, "addresses": list(urls), **more}}


def named(name: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name.encode())


async def asked(gateway: GatewayUnderTest, times: int) -> Counter[str]:
    """Ask on one connection; count who answered, or with which status."""
    async with gateway.wire() as wire:
        replies = [await wire.ask(GET) for _ in range(times)]
    return Counter(reply.body.decode() if reply.status == 200 else str(reply.status) for reply in replies)


class Load:
    """Clients that ask all the time, each on one connection."""

    def __init__(self, gateway: GatewayUnderTest, clients: int) -> None:
        self.statuses: Counter[int] = Counter()
        self._gateway = gateway
        self._ends = False
        self._tasks = [asyncio.create_task(self._client()) for _ in range(clients)]

    async def _client(self) -> None:
        async with self._gateway.wire() as wire:
            while not self._ends:
                self.statuses[(await wire.ask(GET)).status] += 1

    async def more(self, count: int) -> None:
        """Wait until this many further requests were answered."""
        goal = self.statuses.total() + count
        await until(lambda: self.statuses.total() >= goal or any(task.done() for task in self._tasks), 30)

    async def end(self) -> None:
        self._ends = True
        await asyncio.gather(*self._tasks)


async def test_requests_are_spread_over_the_addresses(database_url: str, fast_lane: bool) -> None:
    async with recording_upstream() as one, recording_upstream() as two, recording_upstream() as three:
        for name, server in (("one", one), ("two", two), ("three", three)):
            server.respond = answering(named(name))
        addresses = several(one.url, two.url, three.url)
        async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=addresses) as gateway:
            answered = await asked(gateway, 30)

    assert answered == {"one": 10, "two": 10, "three": 10}


async def test_an_address_dead_from_the_start_costs_nobody_an_answer(database_url: str, fast_lane: bool) -> None:
    async with recording_upstream() as dead:
        pass
    async with recording_upstream() as alive:
        addresses = several(dead.url, alive.url)
        async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=addresses) as gateway:
            answered = await asked(gateway, 20)
            posted = await gateway.ask(request("/public/x", method="POST", body=b"hello"))
            failures = await gateway.metric("gateway_upstream_address_failures_total", upstream="app")
            resting = await gateway.metric("gateway_upstream_addresses_resting", upstream="app")
            broken = await gateway.metric("gateway_upstream_errors_total", upstream="app")

    assert answered == {"ok": 20}
    assert (posted.status, alive.last.body) == (200, b"hello")
    assert (failures >= 1, resting, broken) == (True, 1, 0)


async def test_an_address_that_dies_under_load_and_comes_back_costs_no_get(database_url: str, fast_lane: bool) -> None:
    async with recording_upstream() as alive, AsyncExitStack() as process:
        dying = await process.enter_async_context(recording_upstream())
        addresses = several(alive.url, dying.url, max_connections=BUSY)
        async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=addresses) as gateway:
            load = Load(gateway, 16)
            await load.more(500)
            await process.aclose()
            await load.more(500)
            async with recording_upstream(port=dying.port) as back:
                await until(lambda: len(back.received) >= 100, 30)
                await load.end()
            resting = await gateway.metric("gateway_upstream_addresses_resting", upstream="app")

    assert load.statuses == {200: load.statuses.total()}
    assert dying.received
    assert resting == 0


SERVER = """
import asyncio, sys

async def serve(reader, writer):
    while await reader.readuntil(b"\\r\\n\\r\\n"):
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


async def test_a_process_killed_under_load_costs_no_get(database_url: str, fast_lane: bool) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    async with recording_upstream() as alive:
        addresses = several(alive.url, f"http://127.0.0.1:{port}", max_connections=BUSY)
        async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=addresses) as gateway:
            load = Load(gateway, 16)
            await load.more(500)
            served_there = load.statuses.total() - len(alive.received)
            process.kill()
            await process.wait()
            await load.more(500)
            await load.end()

    assert served_there
    assert load.statuses == {200: load.statuses.total()}


async def test_all_dead_is_502_at_once_and_heals_without_waiting_for_a_pause(
    database_url: str, fast_lane: bool
) -> None:
    async with recording_upstream() as one, recording_upstream(port=free_port()) as two:
        pass
    addresses = several(one.url, two.url)
    async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=addresses) as gateway:
        dead = await asked(gateway, 8)
        async with recording_upstream(port=two.port):
            healed = await asked(gateway, 4)

    assert dead == {"502": 8}
    assert healed == {"ok": 4}


async def test_an_address_that_rests_is_asked_again_once_its_pause_is_over(database_url: str, fast_lane: bool) -> None:
    async with recording_upstream(port=free_port()) as gone:
        pass
    async with recording_upstream() as alive:
        addresses = several(alive.url, gone.url)
        async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=addresses) as gateway:
            await asked(gateway, 10)
            failed = await gateway.metric("gateway_upstream_address_failures_total", address_index="1")
            async with recording_upstream(port=gone.port) as back:
                await asyncio.sleep(FIRST_PAUSE_S)
                await asked(gateway, 10)

    assert failed == 1
    assert len(back.received) == 5


async def test_a_unix_socket_serves(database_url: str, fast_lane: bool, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    async with recording_upstream(path=path) as server:
        changes = {"app": {"url": f"unix:{path}"}}
        async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=changes) as gateway:
            got = await asked(gateway, 3)
            posted = await gateway.ask(request("/public/x", method="POST", body=b"hello"))

    assert got == {"ok": 3}
    assert (posted.status, server.last.body) == (200, b"hello")
    assert server.last.one("host") == "app.example.test"
    assert server.last.one("x-forwarded-for") == "127.0.0.1"
    assert server.connections == 1


async def test_a_unix_socket_that_is_not_there_is_502_without_its_path(
    database_url: str, fast_lane: bool, tmp_path: Path
) -> None:
    changes = {"app": {"url": f"unix:{tmp_path}/app.sock"}}
    async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=changes) as gateway:
        reply = await gateway.get("/public/x")

    assert (reply.status, reply.code) == (502, "upstream_unreachable")
    assert b"app.sock" not in reply.body


async def test_a_socket_replaced_by_a_new_server_is_found_again(
    database_url: str, fast_lane: bool, tmp_path: Path
) -> None:
    path = tmp_path / "app.sock"
    changes = {"app": {"url": f"unix:{path}"}}
    async with gateway_under_test(database_url, fast_lane=fast_lane, upstreams=changes) as gateway:
        async with recording_upstream(path=path):
            before = await asked(gateway, 2)
        async with recording_upstream(path=path) as server:
            after = await asked(gateway, 2)

    assert (before, after) == ({"ok": 2}, {"ok": 2})
    assert len(server.received) == 2
