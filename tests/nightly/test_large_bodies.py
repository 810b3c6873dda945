"""Bodies larger than any memory we would want to give the gateway. `NIGHTLY_BYTES` makes them smaller."""

import asyncio
import os

import pytest

from tests.support.large_bodies import (
    DEADLINE_S,
    GROWTH_AT_MOST,
    WARM_UP,
    download,
    forget_peak,
    head,
    memory,
    sum_of,
    swallow,
    upload,
)
from tests.support.serve_process import ServeProcess
from tests.support.wire import connected

SIZE = int(os.environ.get("NIGHTLY_BYTES", str(2 * 2**30)))


@pytest.mark.usefixtures("large_bodies")
async def test_download_arrives_whole_and_stays_out_of_memory(served: ServeProcess) -> None:
    pid = served.process.pid
    async with asyncio.timeout(DEADLINE_S), connected(served.port) as wire:
        await download(wire, WARM_UP)
        forget_peak(pid)
        before = memory(pid, "VmRSS")
        arrived = await download(wire, SIZE)

    assert arrived == sum_of(SIZE)
    assert memory(pid, "VmHWM") - before < GROWTH_AT_MOST


@pytest.mark.usefixtures("large_bodies")
async def test_upload_arrives_whole_and_stays_out_of_memory(served: ServeProcess) -> None:
    pid = served.process.pid
    async with asyncio.timeout(DEADLINE_S), connected(served.port) as wire:
        await upload(wire, WARM_UP)
        forget_peak(pid)
        before = memory(pid, "VmRSS")
        said = await upload(wire, SIZE)

    assert said == sum_of(SIZE)[1]
    assert memory(pid, "VmHWM") - before < GROWTH_AT_MOST


@pytest.mark.usefixtures("large_bodies")
async def test_client_that_stops_reading_stops_the_upstream_and_costs_no_memory(served: ServeProcess) -> None:
    pid = served.process.pid
    async with asyncio.timeout(DEADLINE_S), connected(served.port) as wire:
        await download(wire, WARM_UP)
        forget_peak(pid)
        before = memory(pid, "VmRSS")
        await wire.send(head("GET", SIZE))
        await asyncio.sleep(3)  # long enough for everything to arrive if nobody held it back
        grown = memory(pid, "VmHWM") - before
        await wire.reader.readuntil(b"\r\n\r\n")
        arrived = await swallow(wire.reader, SIZE)

    assert grown < GROWTH_AT_MOST
    assert arrived == sum_of(SIZE)
