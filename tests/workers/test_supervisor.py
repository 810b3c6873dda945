"""What a supervisor does when something is wrong: ports, settings, workers that cannot start, its own death."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from config.values import Address
from gateway.listen.sockets import address_of, bind, bind_shared
from tests.support.certificates import Authority
from tests.support.load import load_on
from tests.support.upstream import until
from tests.support.wire import connected, request
from tests.support.workers import Crew, crew_under_test, settings_of_workers

NOWHERE = "http://127.0.0.1:1"


@dataclass(frozen=True)
class Ran:
    code: int
    err: str


async def serve_to_its_end(folder: Path, settings: dict[str, Any]) -> Ran:
    """Run a gateway that cannot start."""
    file = folder / "cannot-start.yaml"
    await asyncio.to_thread(file.write_text, json.dumps(settings))
    command = [sys.executable, "-m", "gateway", "serve", "-c", str(file)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return Ran(process.returncode, err.decode())


@pytest.fixture
def settings(database_url: str, redis_url: str) -> dict[str, Any]:
    return settings_of_workers(NOWHERE, NOWHERE, database_url, redis_url)


@dataclass
class Breakable:
    """A crew whose workers can only start while a file is sound."""

    crew: Crew
    ca_file: Path

    async def break_(self) -> None:
        await asyncio.to_thread(self.ca_file.rename, self.ca_file.with_suffix(".away"))

    async def mend(self) -> None:
        await asyncio.to_thread(self.ca_file.with_suffix(".away").rename, self.ca_file)


@asynccontextmanager
async def breakable(folder: Path, database_url: str, redis_url: str) -> AsyncIterator[Breakable]:
    authority = await asyncio.to_thread(Authority, folder)
    other = {"url": "https://127.0.0.1:1", "ca_file": str(authority.ca_file)}
    async with crew_under_test(folder, database_url, redis_url, upstreams={"other": other}) as crew:
        yield Breakable(crew, authority.ca_file)


async def test_a_worker_that_cannot_start_again_rests_ever_longer_and_another_takes_its_clients(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    async with breakable(tmp_path, database_url, redis_url) as broken:
        crew = broken.crew
        await broken.break_()
        async with load_on(crew.port) as load:  # half of those who dial arrive at the dead worker's socket
            await load.until_answered(50)
            os.kill(crew.pid(0), signal.SIGTERM)
            ended = await crew.told("worker ended", 4)
            await load.until_answered(200)
            await broken.mend()
            await crew.told("worker listening", 2, worker=0)

        assert (load.lost, load.refused, load.statuses) == ([], 0, {200})
        assert [line["reason"] for line in ended[:4]] == ["exit code 0", *["exit code 1"] * 3]
        assert all("upstreams.other.ca_file" in line["message"] for line in ended[1:4])
        rests = [line["rest_s"] for line in ended[:4]]
        assert rests[0] == 0.0
        assert 0.5 <= rests[1] <= 1.0 <= rests[2] <= 2.0 <= rests[3] <= 4.0
        assert await crew.metric("gateway_worker_restarts_total", reason="exit") == len(crew.lines("worker ended"))


async def test_clients_a_dead_worker_had_not_accepted_are_answered_by_another(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    async with breakable(tmp_path, database_url, redis_url) as broken, AsyncExitStack() as stack:
        crew = broken.crew
        await broken.break_()
        with crew.frozen(0):
            wires = [await stack.enter_async_context(connected(crew.port)) for _ in range(24)]
            for wire in wires:
                await wire.send(request("/x"))
            os.kill(crew.pid(0), signal.SIGKILL)
            replies = [await wire.reply() for wire in wires]

        assert [reply.status for reply in replies] == [401] * 24
        assert {line["worker"] for line in await crew.told("request refused", 24)} == {1}


async def test_what_keeps_a_worker_from_its_first_start_is_told_as_one_process_tells_it(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    settings["upstreams"]["app"] = {"url": "https://127.0.0.1:1", "ca_file": str(tmp_path / "missing.pem")}

    several = await serve_to_its_end(tmp_path, settings)
    alone = await serve_to_its_end(tmp_path, settings | {"workers": 1})

    assert several == alone
    assert several.code == 1
    assert several.err.startswith("gateway serve: upstreams.app.ca_file cannot be used")


async def test_a_taken_port_is_told_as_one_process_tells_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings["listen"] = f"127.0.0.1:{taken.getsockname()[1]}"
        several = await serve_to_its_end(tmp_path, settings)
        alone = await serve_to_its_end(tmp_path, settings | {"workers": 1})

    assert several == alone
    assert several.code == 1
    assert several.err.endswith(f"cannot listen on {settings['listen']}: Address already in use\n")


async def test_a_second_gateway_cannot_share_the_port_of_the_first(
    crew: Crew, tmp_path: Path, settings: dict[str, Any]
) -> None:
    settings["listen"] = f"127.0.0.1:{crew.port}"

    second = await serve_to_its_end(tmp_path, settings)

    assert second.code == 1
    assert f"cannot listen on 127.0.0.1:{crew.port}" in second.err


def test_shared_sockets_have_one_port_and_are_closed_to_others() -> None:
    first, *others = bind_shared(Address("127.0.0.1", 0), 4)
    try:
        for listener in (first, *others):
            listener.listen()

        assert {address_of(listener) for listener in others} == {address_of(first)}
        for intruder in (lambda: bind(address_of(first)), lambda: bind_shared(address_of(first), 2)):
            with pytest.raises(OSError, match="cannot listen on"):
                intruder()
    finally:
        for listener in (first, *others):
            listener.close()


async def test_a_killed_supervisor_leaves_no_process(crew: Crew) -> None:
    crew.process.process.kill()
    await asyncio.wait_for(crew.process.process.wait(), 10)
    # Every process of the gateway holds its log open, so its end is the end of all.
    await asyncio.wait_for(crew.process.silent.wait(), 10)

    with pytest.raises(ConnectionRefusedError):
        await crew.get("/public/x")


async def test_the_embedded_database_is_started_once_and_serves_every_worker(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    embedded = {"database": {"url": None, "embedded": True}, "data_dir": str(tmp_path / "data")}
    async with crew_under_test(tmp_path, database_url, redis_url, **embedded) as crew:
        async with asyncio.timeout(10):
            while (ready := await crew.admin("/readyz")).json()["workers"]["ready"] < 2:  # noqa: ASYNC110 - keys are coming
                await asyncio.sleep(0.05)

        assert ready.json()["checks"]["database"] == "ok"
        assert ready.json()["workers"] == {"ready": 2, "of": 2}
        assert len(crew.lines("database_migrated")) == 1
        assert await crew.process.ended() == 0


async def test_settings_that_are_wrong_are_refused_on_sighup_and_nobody_is_disturbed(crew: Crew) -> None:
    good = await asyncio.to_thread(crew.process.file.read_text)
    await asyncio.to_thread(crew.process.file.write_text, json.dumps({**json.loads(good), "lisen": "1"}))
    crew.process.process.send_signal(signal.SIGHUP)
    refused, *_ = await crew.told("settings refused, the old ones stay")

    assert "lisen" in str(refused["problems"])
    assert (await crew.get("/public/x")).status == 200
    assert crew.lines("worker ended") == []


async def test_settings_that_need_a_restart_are_named_on_sighup(crew: Crew) -> None:
    good = await asyncio.to_thread(crew.process.file.read_text)
    await asyncio.to_thread(crew.process.file.write_text, json.dumps({**json.loads(good), "workers": 3}))
    crew.process.process.send_signal(signal.SIGHUP)
    told, *_ = await crew.told("settings need a restart")

    assert told["keys"] == ["workers"]
    assert (await crew.get("/public/x")).status == 200


@pytest.mark.parametrize("signalled", [True, False], ids=["on_sighup", "when_the_file_changed"])
async def test_every_worker_takes_changed_settings_into_force(crew: Crew, signalled: bool) -> None:
    good = json.loads(await asyncio.to_thread(crew.process.file.read_text))
    beside = crew.process.file.with_name(".next")
    await asyncio.to_thread(beside.write_text, json.dumps({**good, "hosts": ["elsewhere.example"]}))
    await asyncio.to_thread(beside.replace, crew.process.file)
    if signalled:
        crew.process.process.send_signal(signal.SIGHUP)
    await until(lambda: len({line["worker"] for line in crew.lines("settings reloaded")}) == 2)

    assert {(await crew.get("/public/x")).status for _ in range(20)} == {421}
    assert await crew.process.metric("gateway_config_last_reload_success") == 1
    assert crew.lines("worker ended") == []


async def test_wrong_settings_are_told_by_the_metric_though_no_worker_took_them(crew: Crew) -> None:
    await asyncio.to_thread(crew.process.file.write_text, "lisen: 1\n")
    await until(lambda: len({line["worker"] for line in crew.lines("settings refused")}) == 2)

    assert await crew.process.metric("gateway_config_last_reload_success") == 0
    assert {(await crew.get("/public/x")).status for _ in range(20)} == {200}
