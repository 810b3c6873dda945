"""`gateway serve` reloads on SIGHUP and when its files change, under load, and loses nothing."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.support.gateway import merged, mint_token, written_settings
from tests.support.jwks_server import serve_jwks
from tests.support.serve_process import ServeProcess, serve_process
from tests.support.upstream import RecordingUpstream, recording_upstream, until
from tests.support.websockets import echo_server
from tests.support.wire import bearer, connected, request

DEADLINE_S = 30.0


@dataclass
class Served:
    """A gateway process and what is around it."""

    process: ServeProcess
    upstream: RecordingUpstream
    written: dict[str, Any]

    async def write(self, text: str) -> None:
        """Replace its settings file as careful programs do."""
        beside = self.process.file.with_name(".next")
        await asyncio.to_thread(beside.write_text, text)
        await asyncio.to_thread(beside.replace, self.process.file)

    async def change(self, **changes: Any) -> None:
        """Lay changes over the first settings, nested, and write them."""
        await self.write(json.dumps(merged(self.written, changes)))

    def hang_up(self) -> None:
        """Send SIGHUP."""
        self.process.process.send_signal(signal.SIGHUP)

    async def told(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait until the log has an event this often; gives the latest."""
        await until(lambda: len(self.process.events(event)) >= count, DEADLINE_S)
        return self.process.events(event)[-1]


@asynccontextmanager
async def served(folder: Path, database_url: str, **changes: Any) -> AsyncIterator[Served]:
    async with AsyncExitStack() as stack:
        jwks = await stack.enter_async_context(serve_jwks())
        upstream = await stack.enter_async_context(recording_upstream())
        written = written_settings(database_url, jwks.url, upstream.url, **changes)
        yield Served(await stack.enter_async_context(serve_process(folder, written)), upstream, written)


async def test_a_changed_file_is_taken_into_force_without_a_signal(tmp_path: Path, database_url: str) -> None:
    async with served(tmp_path, database_url) as gateway, connected(gateway.process.port) as wire:
        before = await wire.ask(request("/optional/x"))
        await gateway.change(routes=[{"path": "/public/**", "auth": "none", "upstream": "app"}])
        line = await gateway.told("settings reloaded")
        after = await wire.ask(request("/optional/x"))

        assert (before.status, after.status) == (200, 404)
        assert line["changed"] == ["routes"]
        assert await gateway.process.metric("gateway_config_last_reload_success") == 1


async def test_m03_a_bad_file_is_told_with_its_place_and_a_good_one_heals(tmp_path: Path, database_url: str) -> None:
    async with served(tmp_path, database_url) as gateway:
        began = await gateway.process.metric("gateway_config_last_reload_success_timestamp_seconds")
        await gateway.write(json.dumps(gateway.written, indent=1).replace('"routes"', '"rotes"'))
        line = await gateway.told("settings refused")
        refused = await gateway.process.metric("gateway_config_last_reload_success")
        passed = await gateway.process.ask(request("/x", bearer(mint_token())))
        await gateway.change(hosts=["app.example.test"])
        await gateway.told("settings reloaded")

        assert any(
            problem.startswith(f"{gateway.process.file}:") and " rotes: " in problem for problem in line["problems"]
        )
        assert (refused, passed.status) == (0, 200)
        assert await gateway.process.metric("gateway_config_last_reload_success") == 1
        assert await gateway.process.metric("gateway_config_last_reload_success_timestamp_seconds") > began


async def test_a_file_that_vanishes_changes_nothing(tmp_path: Path, database_url: str) -> None:
    async with served(tmp_path, database_url) as gateway:
        await asyncio.to_thread(gateway.process.file.unlink)
        await gateway.told("settings refused")
        passed = await gateway.process.ask(request("/x", bearer(mint_token())))
        await gateway.change()
        await gateway.told("settings reloaded")

        assert passed.status == 200


async def test_hanging_up_reads_the_file_again_though_nothing_in_it_changed(tmp_path: Path, database_url: str) -> None:
    async with served(tmp_path, database_url) as gateway:
        for count in (1, 2, 3):
            gateway.hang_up()
            line = await gateway.told("settings reloaded", count)

            assert line["changed"] == []
        assert await gateway.process.ended() == 0


async def test_w09_reload_drops_no_websocket_of_a_real_client(tmp_path: Path, database_url: str) -> None:
    async with (
        echo_server() as other,
        echo_server() as address,
        served(tmp_path, database_url, upstreams={"app": {"url": address}}) as gateway,
        connect(
            f"ws://127.0.0.1:{gateway.process.port}/ws",
            additional_headers={"Authorization": f"Bearer {mint_token()}"},
            proxy=None,
        ) as client,
    ):
        for count in (1, 2, 3):
            await gateway.change(upstreams={"app": {"url": (address, other)[count % 2]}})
            await gateway.told("settings reloaded", count)
            await client.send(f"message {count}")

            assert await client.recv() == f"message {count}"


@pytest.mark.parametrize("fast_lane", [True, False], ids=["fast_lane", "aiohttp_lane"])
async def test_hanging_up_under_load_loses_no_request(tmp_path: Path, database_url: str, fast_lane: bool) -> None:
    done = asyncio.Event()
    statuses: Counter[int] = Counter()
    lost: list[BaseException] = []
    asked = (
        request("/public/x"),
        request("/x", bearer(mint_token())),
        request("/x", bearer(mint_token()), method="POST", body=b"y" * 3000),
        request("/users/current", bearer(mint_token())),
    )

    async def client(number: int, port: int) -> None:
        async with connected(port) as wire:
            while not done.is_set():
                try:
                    reply = await wire.ask(asked[number % len(asked)])
                except (OSError, EOFError, TimeoutError) as error:
                    lost.append(error)
                    return
                statuses[reply.status] += 1

    async with (
        recording_upstream() as other,
        served(tmp_path, database_url, fast_lane=fast_lane) as gateway,
        asyncio.TaskGroup() as group,
    ):
        for number in range(12):
            group.create_task(client(number, gateway.process.port))
        for count in range(1, 7):
            answered = statuses.total()
            url = (gateway.upstream, other)[count % 2].url
            await gateway.change(upstreams={"app": {"url": url}}, database={"pool_size": 10 + count % 2})
            gateway.hang_up()
            await gateway.told("settings reloaded", count)
            await until(lambda goal=answered + 100: statuses.total() > goal, DEADLINE_S)  # type: ignore[misc]
        done.set()

    assert lost == []
    assert set(statuses) == {200}


async def test_a_secret_file_that_changed_is_read_again(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret_key"
    secret.write_text("sk_test_one\n")
    monkeypatch.setenv("GW_CLERK__SECRET_KEY_FILE", str(secret))
    async with served(tmp_path, database_url) as gateway:
        await asyncio.to_thread(secret.write_text, "sk_test_two\n")
        line = await gateway.told("settings reloaded")
        await gateway.process.ended()

    assert line["changed"] == ["clerk"]
    assert "sk_test" not in json.dumps(gateway.process.lines)
