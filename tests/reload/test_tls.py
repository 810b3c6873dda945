"""Certificates of the listener: renewed for new handshakes, without a word to open connections."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.support.certificates import Authority, Files
from tests.support.gateway import GatewayUnderTest, gateway_under_test
from tests.support.wire import Wire, request


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def shown(tmp_path: Path, authority: Authority) -> Files:
    """The files that the settings name."""
    files = Files(tmp_path / "tls.pem", tmp_path / "tls.key")
    put(files, authority.issue("127.0.0.1"))
    return files


def put(files: Files, new: Files) -> None:
    shutil.copy(new.certificate, files.certificate)
    shutil.copy(new.key, files.key)


@pytest.fixture
async def secured(database_url: str, fast_lane: bool, shown: Files) -> AsyncIterator[GatewayUnderTest]:
    tls = {"certificate": str(shown.certificate), "key": str(shown.key)}
    async with gateway_under_test(database_url, fast_lane=fast_lane, tls=tls) as running:
        yield running


@asynccontextmanager
async def connected(gateway: GatewayUnderTest, authority: Authority) -> AsyncIterator[tuple[Wire, int]]:
    """Open a connection; gives the serial number of the certificate it was shown, too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=authority.client())
    try:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        certificate = tls.getpeercert()
        assert certificate is not None
        yield Wire(reader, writer), int(str(certificate["serialNumber"]), 16)
    finally:
        writer.close()


async def test_a_renewed_certificate_is_shown_to_new_connections_and_open_ones_go_on(
    secured: GatewayUnderTest, authority: Authority, shown: Files
) -> None:
    async with connected(secured, authority) as (wire, before):
        await wire.ask(request("/public/x"))
        await asyncio.to_thread(put, shown, await asyncio.to_thread(authority.issue, "127.0.0.1"))
        assert await secured.reload()

        assert (await wire.ask(request("/public/x"))).status == 200
        async with connected(secured, authority) as (other, after):
            assert (await other.ask(request("/public/x"))).status == 200
    assert before != after


async def test_certificates_at_another_place_are_shown(secured: GatewayUnderTest, authority: Authority) -> None:
    files = await asyncio.to_thread(authority.issue, "127.0.0.1")
    assert await secured.reload(tls={"certificate": str(files.certificate), "key": str(files.key)})

    async with connected(secured, authority) as (_, serial):
        assert f"{serial:x}" == files.certificate.stem


@pytest.mark.parametrize("half", ["certificate", "key"])
async def test_half_a_pair_keeps_the_old_one(
    secured: GatewayUnderTest, authority: Authority, shown: Files, half: str
) -> None:
    async with connected(secured, authority) as (_, before):
        pass
    new = await asyncio.to_thread(authority.issue, "127.0.0.1")
    await asyncio.to_thread(shutil.copy, getattr(new, half), getattr(shown, half))
    with capture_logs() as logs:
        assert not await secured.reload()

    assert [line["event"] for line in logs] == ["reload failed"]
    assert logs[0]["cause"].startswith("tls.certificate and tls.key cannot be used")
    async with connected(secured, authority) as (wire, after):
        assert (await wire.ask(request("/public/x"))).status == 200
    assert before == after
