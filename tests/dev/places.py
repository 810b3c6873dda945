"""A place to test the issuer in: real ports, a real key made once."""

import asyncio
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aiohttp import ClientSession, CookieJar, web

from gateway.dev.assets import load_assets
from gateway.dev.folder import Ports
from gateway.dev.issuer import issuer_application
from gateway.dev.place import Place
from gateway.dev.ports import listening_socket, port_of
from gateway.dev.tokens import Mint, SigningKey

SECRET_KEY = "sk_test_of_the_tests"
GATEWAY = "http://127.0.0.1:8080"
NOW = 1_790_000_000


@cache
def signing_key() -> SigningKey:
    return SigningKey.generate()


def a_place(issuer_port: int = 5555, upstream_url: str = "http://127.0.0.1:1") -> Place:
    return Place(Ports(8080, issuer_port, 5556), admin_url="http://127.0.0.1:1", upstream_url=upstream_url)


def a_mint(place: Place) -> Mint:
    return Mint(signing_key(), place.issuer_url, place.gateway_url)


@dataclass(frozen=True, slots=True)
class Served:
    """A running issuer.

    `client` keeps cookies of addresses, as a browser does, and follows no redirect by itself.
    """

    place: Place
    mint: Mint
    client: ClientSession
    runner: web.AppRunner

    @property
    def url(self) -> str:
        return self.place.issuer_url

    async def close(self) -> None:
        await self.client.close()
        await self.runner.cleanup()


async def serve_issuer() -> Served:
    listener = listening_socket(0)
    place = a_place(port_of(listener))
    mint = a_mint(place)
    runner = web.AppRunner(
        issuer_application(place, mint, SECRET_KEY, await asyncio.to_thread(load_assets)), shutdown_timeout=0.1
    )
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return Served(place, mint, ClientSession(cookie_jar=CookieJar(unsafe=True)), runner)


def private_files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
