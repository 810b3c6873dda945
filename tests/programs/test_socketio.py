"""Socket.IO's own client for browsers, in Node, and its server for Python, with the gateway between them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.support.gateway import ORIGIN, mint_token
from tests.support.minted import ask_for_token, claims_of, signed, websocket_token
from tests.support.postgres import PostgresServer
from tests.support.programs import program_named
from tests.support.socketio_upstream import SocketIoGateway, socketio_gateway

HERE = Path(__file__).parent
DEADLINE_S = 20.0
TRANSPORTS = pytest.mark.parametrize(
    "transports", [["websocket"], ["polling"], None], ids=["websocket", "polling", "as it comes"]
)


class NodeClient:
    """The program, event by event."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def next(self, *wanted: str) -> Any:
        """What the next event of these names says."""
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while True:
                line = await self.process.stdout.readline()
                assert line, "the client ended"
                event, data = json.loads(line)
                if event in wanted:
                    return data

    async def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())
        await self.process.stdin.drain()


@asynccontextmanager
async def node_client(way: SocketIoGateway, *tokens: str, **plan: Any) -> AsyncIterator[NodeClient]:
    text = json.dumps({"url": way.url, "tokens": tokens} | {key: value for key, value in plan.items() if value})
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program_named("node"), str(HERE / "socketio_client.mjs"), str(HERE), text, stdin=pipe, stdout=pipe
    )
    try:
        yield NodeClient(process)
    finally:
        process.kill()
        await process.wait()


@TRANSPORTS
async def test_client_connects_and_the_upstream_reads_the_assertion(
    database_url: str, transports: list[str] | None
) -> None:
    async with socketio_gateway(database_url) as way:
        token = await websocket_token(way.gateway)
        async with node_client(way, token, transports=transports) as client:
            said = await client.next("connected")
            if said["transport"] == "polling" and transports is None:  # else it upgraded before it was connected
                assert await client.next("upgraded") == "websocket"
            await client.tell("leave")

        keys = (await way.gateway.get("/.well-known/jwks.json")).json()
        assertion = way.upstream.auths[0][1]["token"]
        key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(assertion)["kid"]]
        proven = jwt.decode(assertion, key, algorithms=["ES256"], audience="app", issuer=ORIGIN)
        assert said["claims"] == proven
        assert (said["text"], said["bytes"]) == ("ä", [0, 255])
        assert token not in way.upstream.written()


@TRANSPORTS
@pytest.mark.parametrize("kind", ["expired", "foreign", "session"])
async def test_w06_client_with_a_bad_token_is_told_and_does_not_try_again_by_itself(
    database_url: str, transports: list[str] | None, kind: str
) -> None:
    async with socketio_gateway(database_url) as way:
        good = await websocket_token(way.gateway)
        bad = {
            "expired": signed(way.gateway, good, exp=1, iat=0),
            "foreign": jwt.encode(claims_of(good), "another key of another gateway, long enough", algorithm="HS256"),
            "session": mint_token(),
        }[kind]
        async with node_client(way, bad, good, transports=transports) as client:
            told = await client.next("connect_error")
            before = list(way.upstream.auths)
            await client.tell("connect")
            said = await client.next("connected")

        assert told["message"] == "invalid_token"
        assert told["data"]["status"] == 401
        assert told["active"] is False
        assert before == []
        assert said["claims"]["auth"] == "websocket_token"


@TRANSPORTS
async def test_w07_revoked_client_is_cut_and_refused_until_it_has_a_token_that_counts(
    database_url: str, transports: list[str] | None
) -> None:
    async with socketio_gateway(database_url) as way:
        token = await websocket_token(way.gateway)
        other = await websocket_token(way.gateway, sid="sess_2other")
        async with node_client(way, token, other, transports=transports) as client:
            await client.next("connected")
            assert way.gateway.reloader.home.live.end(session="sess_2testSession") == 1
            await client.next("disconnect")
            said = await client.next("connected")  # reconnects by itself, with the next token

        assert said["claims"]["sid"] == "sess_2other"


@TRANSPORTS
async def test_w07_client_reconnects_with_a_renewed_token_when_its_own_expires(
    database_url: str, transports: list[str] | None
) -> None:
    async with socketio_gateway(database_url, tokens={"websocket_life": "2s"}) as way:
        token = await websocket_token(way.gateway)
        async with node_client(way, token, await _later(way), transports=transports) as client:
            first = await client.next("connected")
            await client.next("disconnect")
            second = await client.next("connected")

        assert second["claims"]["sub"] == first["claims"]["sub"]


async def _later(way: SocketIoGateway) -> str:
    """A token that lives longer than the settings let one."""
    token = str((await ask_for_token(way.gateway)).json()["token"])
    return signed(way.gateway, token, exp=int(time.time()) + 60)


@TRANSPORTS
async def test_outage_makes_the_client_try_again_by_itself(
    postgres_server: PostgresServer, transports: list[str] | None
) -> None:
    cache = {"near_ttl": "1ms", "degraded_ttl": "1ms", "stale_if_error": "1ms"}
    async with socketio_gateway(postgres_server.url, cache=cache) as way:
        token = await websocket_token(way.gateway)
        await asyncio.sleep(0.01)  # longer than anything is remembered
        await postgres_server.stop()
        async with node_client(way, token, transports=transports) as client:
            await _unavailable(way)
            await postgres_server.start(migrated=False)
            said = await client.next("connected", "connect_error")
            while "claims" not in said:
                assert said["data"] is None or said["data"].get("status") is None, said
                said = await client.next("connected", "connect_error")

        assert said["claims"]["auth"] == "websocket_token"


async def _unavailable(way: SocketIoGateway) -> None:
    async with asyncio.timeout(DEADLINE_S):
        kind = {"kind": "websocket_token", "outcome": "unavailable"}
        while await way.gateway.metric("gateway_auth_decisions_total", **kind) < 2:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)
