"""The balancers of docs/replicas.md, as they stand there but for addresses, ports and certificates."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority, Files
from tests.support.fleet import Fleet, fleet_under_test
from tests.support.gateway import mint_token
from tests.support.haproxy import configured_haproxy
from tests.support.load import load_on
from tests.support.nginx import nginx
from tests.support.ports import free_port
from tests.support.websockets import handshake, switching, then_echo
from tests.support.wire import bearer, connected, request

PAGE = Path(__file__).parents[2] / "docs/replicas.md"
CLIENT = "127.0.0.2"
PAUSE_S = {"HAProxy": 0.0, "nginx": 2.5}
"""Between two restarts: nginx asks nobody for `fail_timeout` who failed once, and there must be somebody to ask."""
BOTH = pytest.mark.parametrize("program", ["HAProxy", "nginx"])


@dataclass(frozen=True, slots=True)
class Balanced:
    """Gateways behind a documented balancer, which speaks TLS."""

    fleet: Fleet
    port: int
    tls: ssl.SSLContext


def documented(program: str, port: int, gateways: Sequence[int], files: Files) -> str:
    """The page's configuration for these."""
    blocks = re.findall(r"^(HAProxy|nginx)\b[^\n]*:\n\n```text\n(.*?)```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    text: str = dict(blocks)[program]
    both = files.certificate.with_suffix(".both")
    both.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())
    here = {f"10.0.0.1{number}:8080": f"127.0.0.1:{gateway}" for number, gateway in enumerate(gateways, 1)}
    here |= {
        "HAProxy": {"bind :443 ssl crt /etc/haproxy/app.pem": f"bind 127.0.0.1:{port} ssl crt {both}"},
        "nginx": {
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "/etc/nginx/app.pem": str(files.certificate),
            "/etc/nginx/app.key": str(files.key),
        },
    }[program]
    for written, instead in here.items():
        assert text.count(written) == 1, f"docs/replicas.md: {written!r} stands there {text.count(written)} times"
        text = text.replace(written, instead)
    return text


def run(program: str, folder: Path, port: int, text: str) -> AbstractContextManager[object]:
    if program == "HAProxy":
        return configured_haproxy(folder, port, text)
    return nginx(folder, "return 404;", text)


@asynccontextmanager
async def balanced(
    program: str, folder: Path, database_url: str, redis_url: str, **changes: Any
) -> AsyncIterator[Balanced]:
    authority, port = Authority(folder), free_port()
    changes = {"trusted_proxies": ["127.0.0.1"], **changes}
    async with fleet_under_test(folder, database_url, redis_url, **changes) as fleet, AsyncExitStack() as stack:
        gateways = [replica.port for replica in fleet.replicas]
        text = documented(program, port, gateways, authority.issue())
        runs: Callable[..., object] = stack.enter_context
        await asyncio.to_thread(runs, run(program, folder / "documented", port, text))
        yield Balanced(fleet, port, authority.client())


@BOTH
async def test_upstream_is_told_the_client_and_its_scheme_and_no_address_a_client_made_up(
    program: str, tmp_path: Path, database_url: str, redis_url: str
) -> None:
    async with (
        balanced(program, tmp_path, database_url, redis_url) as stage,
        connected(stage.port, stage.tls, CLIENT) as wire,
    ):
        made_up = "X-Forwarded-For: 203.0.113.66", "X-Forwarded-Proto: http"
        reply = await wire.ask(request("/x", bearer(mint_token()), *made_up))
        received = stage.fleet.upstream.last

    assert reply.status == 200
    assert received.one("x-forwarded-proto") == "https"
    assert received.one("x-forwarded-for").split(", ")[0] == CLIENT
    assert "203.0.113.66" not in received.one("x-forwarded-for")


@BOTH
async def test_a_websocket_passes(program: str, tmp_path: Path, database_url: str, redis_url: str) -> None:
    async with balanced(program, tmp_path, database_url, redis_url) as stage:
        stage.fleet.upstream.respond = then_echo(switching())
        async with connected(stage.port, stage.tls) as wire:
            switched = await wire.ask(handshake())
            await wire.send(b"\x81\x84\0\0\0\0echo")
            echoed = await wire.reader.readexactly(10)

    assert switched.status == 101
    assert echoed == b"\x81\x84\0\0\0\0echo"


@BOTH
@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_replicas_restarted_one_after_another_fail_no_request(
    program: str, end: str, tmp_path: Path, database_url: str, redis_url: str
) -> None:
    async with (
        balanced(program, tmp_path, database_url, redis_url) as stage,
        load_on(stage.port, tls=stage.tls) as load,
    ):
        for replica in stage.fleet.replicas:
            await load.until_answered(100)
            await getattr(replica, end)()
            await replica.start()
            await asyncio.sleep(PAUSE_S[program])
            await load.until_answered(100)

    assert load.statuses == {200}
    assert (load.lost, load.refused) == ([], 0)
