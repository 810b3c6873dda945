"""R: whom the gateway dials, and what it takes along. Nothing a client or an upstream says may choose either."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.clerk_backend import SECRET_KEY, ClerkBackend
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.upstream import OK, Received, RecordingUpstream, answering, recording_upstream
from tests.support.wire import bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {
    "routes": [
        {"path": "/public/**", "auth": "none", "upstream": "app"},
        {"path": "/stripped/**", "auth": "none", "upstream": "app", "strip_prefix": "/stripped"},
        {
            "path": "/opened/**",
            "auth": "none",
            "upstream": "app",
            "allow_encoded": ["slash"],
            "strip_prefix": "/opened",
        },
        {"path": "/**", "auth": "required", "upstream": "app"},
    ]
}
ELSEWHERE = [
    "//{0}/latest",
    "/@{0}",
    "/\\{0}",
    "http://{0}/latest",
    "http://{0}",
    "http:/{0}/x",
    "https://user:password@{0}/x",
    "{0}",
    "{0}/x",
    "///{0}",
    "/public/..//{0}",
    "/public/@{0}/x",
    "/public/http://{0}/",
    "/public/x?url=http://{0}/",
    "/stripped//{0}/x",
    "/stripped/@{0}/x",
    "/stripped/\\{0}/x",
    "/stripped/{0}/x",
    "/stripped?//{0}",
    "/opened/%2f{0}/x",
    "/opened%2f%2f{0}/x",
    "/opened/%2F%2f{0}/x",
]


@pytest_asyncio.fixture(loop_scope="module")
async def elsewhere() -> AsyncIterator[RecordingUpstream]:
    """A server that nobody has any business with."""
    async with recording_upstream() as server:
        yield server


@pytest.mark.parametrize("method", ["GET", "POST", "CONNECT"])
@pytest.mark.parametrize("target", ELSEWHERE)
async def test_r01_no_target_chooses_whom_the_gateway_dials(
    gateway: GatewayUnderTest, elsewhere: RecordingUpstream, target: str, method: str
) -> None:
    place = target.format(f"127.0.0.1:{elsewhere.port}")

    reply = await gateway.ask(request(place, bearer(mint_token()), "Connection: close", method=method))

    assert reply.status in (200, 400, 405)
    assert elsewhere.connections == 0
    if reply.status == 200:
        seen = gateway.upstream.last
        assert seen.target.startswith(b"/")
        assert not seen.target.startswith(b"//")
        assert seen.one("host") == "app.example.test"
    else:
        assert gateway.upstream.received == []


@pytest.mark.parametrize(
    "line", ["Host: {0}", "X-Forwarded-Host: {0}", "Forwarded: host={0}", "X-Original-URL: http://{0}/"]
)
async def test_r01_no_field_chooses_whom_the_gateway_dials(
    gateway: GatewayUnderTest, elsewhere: RecordingUpstream, line: str
) -> None:
    told = line.format(f"127.0.0.1:{elsewhere.port}")
    host = [] if told.startswith("Host") else ["Host: app.example.test"]

    reply = await gateway.ask("\r\n".join(["GET /public/x HTTP/1.1", *host, told]).encode() + b"\r\n\r\n")

    assert reply.status == 200
    assert elsewhere.connections == 0
    assert len(gateway.upstream.received) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_r02_a_redirect_of_the_upstream_is_relayed_and_not_followed(
    gateway: GatewayUnderTest, elsewhere: RecordingUpstream, status: int
) -> None:
    location = f"{elsewhere.url}/next"
    gateway.upstream.respond = answering(
        f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    )

    reply = await gateway.get("/x", bearer(mint_token()), "Cookie: theme=dark")

    assert (reply.status, reply.get("location")) == (status, location)
    assert len(gateway.upstream.received) == 1
    assert elsewhere.connections == 0


async def test_r05_neither_a_proxy_nor_a_password_of_the_environment_is_used_and_no_caller_is_told_of(
    database_url: str,
    fast_lane: bool,
    elsewhere: RecordingUpstream,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    netrc = tmp_path / "netrc"
    await asyncio.to_thread(netrc.write_text, "default login somebody password of-the-environment\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY"):
        monkeypatch.setenv(name, elsewhere.url)
        monkeypatch.setenv(name.lower(), elsewhere.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    backend = ClerkBackend()
    backend.add_user("user_2testSubject")
    token = mint_token()
    async with backend.running() as clerk:
        settings: dict[str, Any] = {"clerk": {"api_url": clerk.url, "secret_key": SECRET_KEY}, "fast_lane": fast_lane}
        async with gateway_under_test(database_url, **settings) as gateway:
            reply = await gateway.get("/x", bearer(token), "Cookie: theme=private", "X-API-Key: of-the-application")
            keys, upstream = gateway.jwks.headers, gateway.upstream.last

    assert reply.status == 200
    assert elsewhere.connections == 0
    assert upstream.all("authorization") == []
    assert keys
    assert backend.headers
    for headers in (*keys, *backend.headers):
        told = repr(headers)
        for secret in (token, "private", "of-the-application", "of-the-environment"):
            assert secret not in told
    assert all("Authorization" not in headers for headers in keys)
    assert {headers["Authorization"] for headers in backend.headers} == {f"Bearer {SECRET_KEY}"}


async def test_r06_a_cookie_an_upstream_sets_for_one_client_is_no_cookie_of_another(gateway: GatewayUnderTest) -> None:
    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cookie = b"Set-Cookie: who=%b; Path=/\r\nContent-Length" % received.target[-1:]
        writer.write(OK.replace(b"Content-Length", cookie))

    gateway.upstream.respond = respond
    connections = gateway.upstream.connections
    replies = [await gateway.get(f"/public/{who}") for who in "abab"]
    with_credential = await gateway.get("/c", bearer(mint_token()))

    assert [reply.get("set-cookie") for reply in replies] == [f"who={who}; Path=/" for who in "abab"]
    assert with_credential.get("set-cookie") == "who=c; Path=/"
    assert [received.all("cookie") for received in gateway.upstream.received] == [[]] * 5
    assert gateway.upstream.connections <= connections + 1
