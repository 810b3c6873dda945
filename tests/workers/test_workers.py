"""Two workers as clients and operators see them: one port, nobody lost, one set of figures."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.load import load_on
from tests.support.upstream import OK, Received
from tests.support.websockets import frame, handshake, switching, then_echo
from tests.support.wire import connected, request
from tests.support.workers import DEADLINE_S, Crew, crew_under_test
from tests.test_docs import after, rows, words

CLOSE_1012 = frame(0x8, (1012).to_bytes(2, "big") + b"drain")
LASTING = ("_total", "_bucket", "_count", "_sum")


@pytest.fixture
async def impatient(tmp_path: Path, database_url: str, redis_url: str) -> AsyncIterator[Crew]:
    """Two workers that drain for half a second at most."""
    async with crew_under_test(tmp_path, database_url, redis_url, drain_grace="500ms") as running:
        yield running


async def counted(crew: Crew) -> float:
    return await crew.metric("gateway_requests_total", route="/public/**")


async def slowly(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Long enough that some requests are under way whenever something happens."""
    await asyncio.sleep(0.02)
    writer.write(OK)


async def test_requests_are_answered_by_every_worker(crew: Crew) -> None:
    for _ in range(40):
        await crew.get("/x")
    refusals = await crew.told("request refused", 40)

    assert {line["worker"] for line in refusals} == {0, 1}
    assert len({crew.pid(0), crew.pid(1), crew.process.process.pid}) == 3


async def test_metrics_are_those_of_all_workers(crew: Crew) -> None:
    async with load_on(crew.port) as load:
        await load.until_answered(300)

    assert load.lost == []
    assert await counted(crew) == load.answered
    assert await crew.metric("gateway_request_duration_seconds_bucket", route="/public/**", le="+Inf") == load.answered
    assert await crew.metric("gateway_workers", phase="listening") == 2
    assert await crew.metric("gateway_build_info") == 1


async def test_readiness_tells_of_every_check_and_worker(crew: Crew) -> None:
    await crew.told("worker listening", 2)
    async with asyncio.timeout(DEADLINE_S):  # a worker that has no time for a second counts as not ready
        while (ready := await crew.admin("/readyz")).json()["workers"]["ready"] < 2:
            pass

    assert (ready.status, ready.json()) == (
        200,
        {"status": "ok", "checks": {"database": "ok", "signing_keys": "ok"}, "workers": {"ready": 2, "of": 2}},
    )
    assert (await crew.admin("/healthz")).status == 200


async def test_a_worker_that_hangs_is_not_waited_for_by_operators(crew: Crew) -> None:
    await crew.get("/public/x")
    before = await counted(crew)
    with crew.frozen(0):
        after = await counted(crew)
        ready = await crew.admin("/readyz")

    assert after == before == 1
    assert (ready.status, ready.json()["workers"]) == (200, {"ready": 1, "of": 2})


async def test_a_killed_worker_costs_its_requests_under_way_and_nothing_else(crew: Crew) -> None:
    crew.upstream.respond = slowly
    async with load_on(crew.port) as load:
        await load.until_answered(100)
        os.kill(crew.pid(0), signal.SIGKILL)
        (ended,) = await crew.told("worker ended")
        await crew.told("worker listening", 2, worker=0)
        await load.until_answered(200)

    assert (ended["worker"], ended["reason"], ended["rest_s"]) == (0, "signal SIGKILL", 0.0)
    assert len(load.lost) <= 16  # one for each client at most
    assert (load.refused, load.statuses) == (0, {200})
    assert await crew.metric("gateway_worker_restarts_total", reason="signal") == 1
    assert await crew.metric("gateway_workers", phase="listening") == 2


async def test_counters_never_go_down_when_a_worker_is_killed(crew: Crew) -> None:
    seen: list[dict[Any, float]] = []
    async with load_on(crew.port) as load:
        await load.until_answered(100)
        seen.append(await crew.metrics())
        os.kill(crew.pid(0), signal.SIGKILL)
        for _ in range(20):
            await load.until_answered(20)
            seen.append(await crew.metrics())
        await crew.told("worker listening", 2, worker=0)
        seen.append(await crew.metrics())
        scraped = await counted(crew)
        os.kill(crew.pid(1), signal.SIGKILL)
        await crew.told("worker listening", 2, worker=1)
    seen.append(await crew.metrics())

    for one, next_one in itertools.pairwise(seen):
        assert [key for key, value in one.items() if key[0].endswith(LASTING) and next_one.get(key, 0) < value] == []
    assert scraped <= await counted(crew) <= load.answered + len(load.lost) + 16


async def test_a_worker_told_to_end_drains_and_is_replaced_without_a_loss(crew: Crew) -> None:
    crew.upstream.respond = slowly
    async with load_on(crew.port) as load:
        await load.until_answered(100)
        for worker in (0, 1):
            os.kill(crew.pid(worker), signal.SIGTERM)
            await crew.told("worker ended", worker=worker)
            await crew.told("worker listening", 2, worker=worker)
            await load.until_answered(50)

    assert (load.lost, load.refused, load.statuses) == ([], 0, {200})
    assert await counted(crew) == load.answered == len(crew.upstream.received)
    assert {line["reason"] for line in crew.lines("worker ended")} == {"exit code 0"}


async def test_sigterm_under_load_loses_nothing(crew: Crew) -> None:
    crew.upstream.respond = slowly
    async with load_on(crew.port, keeping=12, dialling=12) as load:
        await load.until_answered(300)
        crew.process.process.send_signal(signal.SIGTERM)
        await crew.told("draining")
        crew.process.process.send_signal(signal.SIGTERM)  # a second one hurries nobody
        code = await asyncio.wait_for(crew.process.process.wait(), 20)

    assert (code, load.lost, load.statuses) == (0, [], {200})
    assert load.refused == 24
    assert len(await crew.told("worker draining", 2)) == 2
    assert crew.lines("worker killed") == []


async def test_clients_that_nobody_accepted_yet_are_answered_after_sigterm(crew: Crew) -> None:
    with crew.frozen(0, 1):
        async with AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(connected(crew.port)) for _ in range(24)]
            for wire in wires:
                await wire.send(request("/public/x"))
            crew.process.process.send_signal(signal.SIGTERM)
            await crew.told("draining")
            for worker in (0, 1):
                os.kill(crew.pid(worker), signal.SIGCONT)
            replies = [await wire.reply() for wire in wires]

    assert [reply.status for reply in replies] == [200] * 24
    assert await crew.process.ended() == 0


async def test_requests_under_way_finish_after_sigterm(crew: Crew) -> None:
    gate = asyncio.Event()

    async def held(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(OK)

    crew.upstream.respond = held
    asking = [asyncio.create_task(crew.get("/public/x")) for _ in range(16)]
    await crew.upstream.seen(16)
    crew.process.process.send_signal(signal.SIGTERM)
    await crew.told("worker draining", 2)
    scraped = await crew.metric("gateway_workers", phase="draining")
    gate.set()

    assert [reply.status for reply in await asyncio.gather(*asking)] == [200] * 16
    assert scraped == 2
    assert await crew.process.ended() == 0


async def test_websockets_of_every_worker_are_closed_with_1012(impatient: Crew) -> None:
    async def converse() -> bytes:
        async with connected(impatient.port) as wire:
            await wire.send(handshake())
            await wire.reader.readuntil(b"\r\n\r\n")
            notice = await wire.reader.readexactly(len(CLOSE_1012))
            await wire.send(frame(0x8, notice[2:4], mask=b"abcd"))
            return notice

    impatient.upstream.respond_early = then_echo(switching())
    talks = [asyncio.create_task(converse()) for _ in range(12)]
    await impatient.upstream.seen(12)

    assert await impatient.metric("gateway_websockets_open") == 12
    assert await impatient.process.ended() == 0
    assert await asyncio.gather(*talks) == [CLOSE_1012] * 12


async def test_a_request_that_outlives_the_grace_is_cut_and_the_exit_code_is_0(impatient: Crew) -> None:
    gate = asyncio.Event()

    async def never(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()

    impatient.upstream.respond = never
    async with connected(impatient.port) as wire:
        await wire.send(request("/public/x"))
        await impatient.upstream.seen(1)

        assert await impatient.process.ended() == 0
        assert await wire.closed()
    gate.set()


async def test_a_worker_that_does_not_end_is_killed(impatient: Crew) -> None:
    stuck = impatient.pid(0)
    os.kill(stuck, signal.SIGSTOP)  # no signal but SIGKILL reaches it now

    assert await impatient.process.ended() == 0
    assert [line["pid"] for line in impatient.lines("worker killed")] == [stuck]


async def test_readme_lists_the_metrics_that_only_several_workers_have(crew: Crew) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    listed = {words(row[0])[0]: set(words(row[1])) for row in rows(after(readme, "<!-- worker-metrics:"))}
    common = {words(row[0])[0] for row in rows(after(readme, "<!-- metrics:"))}

    shown = {name: {label for label, _ in labels} for name, labels in await crew.metrics()}
    assert {name: labels for name, labels in shown.items() if name.startswith("gateway_worker")} == listed
    assert not set(listed) & common
