"""Gateway processes over one PostgreSQL, started as an operator starts them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from tests.support.gateway import MASTER_KEY, ORIGIN, PUBLISHABLE_KEY, ROUTES, mint_token
from tests.support.jwks_server import serve_jwks
from tests.support.serve_process import ServeProcess, serve_process
from tests.support.upstream import RecordingUpstream, recording_upstream
from tests.support.wire import bearer, request

TABLES = ("users", "organizations", "memberships")


@asynccontextmanager
async def gateways(
    count: int, folder: Path, database_url: str
) -> AsyncIterator[tuple[list[ServeProcess], RecordingUpstream]]:
    """Start them all at once, so that they also meet over the migration of an empty database."""
    async with AsyncExitStack() as stack:
        jwks = await stack.enter_async_context(serve_jwks())
        upstream = await stack.enter_async_context(recording_upstream())
        settings: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0"},
            "clerk": {
                "publishable_key": PUBLISHABLE_KEY,
                "jwks_url": jwks.url,
                "authorized_parties": [ORIGIN],
                "allow_insecure_http": True,
            },
            "database": {"url": database_url},
            "upstreams": {"app": {"url": upstream.url}},
            "routes": ROUTES,
            "secrets": {"master_key": MASTER_KEY},
        }
        async with asyncio.TaskGroup() as group:
            starting = [
                group.create_task(stack.enter_async_context(serve_process(folder, settings))) for _ in range(count)
            ]
        yield [task.result() for task in starting], upstream


async def test_x05_two_hundred_first_requests_over_two_processes_make_one_user(
    tmp_path: Path, empty_database_url: str
) -> None:
    async with gateways(2, tmp_path, empty_database_url) as ((one, other), upstream):
        organization = {"id": "org_2crowd", "slg": "crowd", "rol": "member"}
        tokens = [mint_token(sub="user_2crowd", o=organization, jti=str(number)) for number in range(200)]

        replies = await asyncio.gather(
            *((one, other)[n % 2].ask(request("/x", bearer(token))) for n, token in enumerate(tokens))
        )

        assert {reply.status for reply in replies} == {200}
        assert len({seen.one("x-actor-id") for seen in upstream.received}) == 1
        assert len({seen.one("x-organization-id") for seen in upstream.received}) == 1
        connection = await asyncpg.connect(empty_database_url)
        try:
            counts = [await connection.fetchval(f"SELECT count(*) FROM {name}") for name in TABLES]
        finally:
            await connection.close()
        assert counts == [1, 1, 1]
        assert [await one.ended(), await other.ended()] == [0, 0]

    assert not [line for line in (*one.lines, *other.lines) if line["level"] == "error"]


async def test_l01_l02_log_of_a_process_is_json_without_what_clients_sent(
    tmp_path: Path, empty_database_url: str
) -> None:
    async with gateways(1, tmp_path, empty_database_url) as ((one,), _):
        token = mint_token(iss="https://other.example")
        await one.ask(request("/x", bearer(token), "User-Agent: ${jndi:ldap://x}\xff"))
        await one.ask(b'GET /"}{"\x1b${jndi:ldap://x} HTTP/1.1\r\nHost: a\r\n\r\n')
        await one.ended()

    told = json.dumps(one.lines)  # every line was read as JSON
    assert "token-invalid-issuer" in told
    assert token not in told
    assert "jndi" not in told
