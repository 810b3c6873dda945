"""W05 with websockets of npm: `ws`, and `graphql-ws` on both ends, with the token as a subprotocol pair."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.gateway import gateway_under_test
from tests.support.minted import ROUTES, current_user
from tests.support.ports import free_port
from tests.support.programs import program_named
from tests.support.websockets import echo_server

SCRIPT = Path(__file__).parent / "websockets.mjs"


async def node(*words: str) -> Any:
    """Run the script to its end; what it printed."""
    process = await asyncio.create_subprocess_exec(program_named("node"), SCRIPT, *words, stdout=subprocess.PIPE)
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    return json.loads(out)


@asynccontextmanager
async def graphql_server() -> AsyncIterator[str]:
    """Serve GraphQL over websockets until the block ends; gives its URL."""
    port = free_port()
    words = (program_named("node"), SCRIPT, "serve", str(port))
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"listening\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.communicate()


async def test_w05_graphql_ws_speaks_its_protocol_behind_the_pair(database_url: str) -> None:
    async with (
        graphql_server() as url,
        gateway_under_test(database_url, routes=ROUTES, upstreams={"app": {"url": url}}) as gateway,
    ):
        user = await current_user(gateway)
        socket = f"ws://127.0.0.1:{gateway.port}/ws/graphql"
        said = await node("graphql", socket, user["websocketToken"])
        refused = await node("graphql", socket, "a.b.c")

    assert said == {"caller": user["id"], "auth": "websocket_token", "offered": "graphql-transport-ws"}
    assert refused == "failed"


async def test_w05_ws_takes_the_pair_alone(database_url: str) -> None:
    async with (
        echo_server() as url,
        gateway_under_test(database_url, routes=ROUTES, upstreams={"app": {"url": url}}) as gateway,
    ):
        user = await current_user(gateway)
        socket = f"ws://127.0.0.1:{gateway.port}/ws/a"
        said = [await node("plain", socket, token) for token in (user["websocketToken"], "a.b.c")]

    assert said == [["bearer", "hello"], "failed"]
