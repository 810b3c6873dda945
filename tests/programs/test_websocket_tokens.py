"""W05 with a real browser: what its `WebSocket` demands of a subprotocol pair is what the gateway answers."""

import asyncio
from pathlib import Path
from typing import Any

from tests.support.browser import chromium
from tests.support.gateway import gateway_under_test
from tests.support.minted import ROUTES, websocket_token
from tests.support.websockets import echo_server

OPEN = """
const [url, protocols] = arguments;
return new Promise(done => {
  const socket = new WebSocket(url, protocols);
  socket.onopen = () => socket.send("hello");
  socket.onmessage = event => { done([socket.protocol, event.data]); socket.close(); };
  socket.onerror = () => done("failed");
});
"""


async def test_w05_browser_opens_websockets_with_a_token_in_either_place(database_url: str, tmp_path: Path) -> None:
    async with (
        echo_server() as url,
        gateway_under_test(database_url, routes=ROUTES, upstreams={"app": {"url": url}}) as gateway,
    ):
        token = await websocket_token(gateway)
        page, socket = f"http://127.0.0.1:{gateway.port}/openapi.json", f"ws://127.0.0.1:{gateway.port}/ws/a"

        def browse() -> list[Any]:
            with chromium(tmp_path) as browser:
                browser.open(page)
                offers: list[tuple[str, list[str]]] = [
                    (socket, ["bearer", token]),
                    (f"{socket}?token={token}", []),
                    (socket, ["bearer", token, "v1"]),  # which the server does not speak
                    (socket, ["bearer", "a.b.c"]),
                ]
                return [browser.run(OPEN, *offer) for offer in offers]

        said = await asyncio.to_thread(browse)

    assert said == [["bearer", "hello"], ["", "hello"], "failed", "failed"]
