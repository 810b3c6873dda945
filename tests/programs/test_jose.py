"""What `docs/upstreams.md` shows for Express, with the real `jose` and `express` of npm, behind the gateway."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.gateway import ORIGIN, gateway_under_test, mint_token
from tests.support.ports import free_port
from tests.support.programs import program_named
from tests.support.wire import Reply, bearer, connected, request

ROOT = Path(__file__).parent.parent.parent
PACKAGES = Path(__file__).parent / "node_modules"


@contextmanager
def application(folder: Path, keys_port: int, port: int, audience: str = "app") -> Iterator[None]:
    """Run what the document shows, until it says that it listens."""
    text = (ROOT / "docs/upstreams.md").read_text(encoding="utf-8")
    code = text.partition("<!-- express:")[2].partition("```js\n")[2].partition("```")[0]
    code = code.replace("new URL(`${ISSUER}/", f"new URL(`http://127.0.0.1:{keys_port}/")
    code = code.replace("https://app.example.com", ORIGIN).replace('AUDIENCE = "app"', f'AUDIENCE = "{audience}"')
    assert PACKAGES.is_dir(), "npm's packages are missing: run `make test-edge`, which installs them"
    folder.mkdir()
    (folder / "node_modules").symlink_to(PACKAGES)
    script = folder / "application.mjs"
    script.write_text(f'{code}\napp.listen({port}, "127.0.0.1", () => console.log("listening"));\n', encoding="utf-8")
    with subprocess.Popen([program_named("node"), script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "listening\n"
            yield
        finally:
            process.terminate()


async def straight(port: int, *lines: str) -> Reply:
    async with connected(port) as wire:
        return await wire.ask(request("/reports", *lines, "Connection: close"))


async def test_express_with_jose_knows_who_calls(database_url: str, tmp_path: Path) -> None:
    port, other_port, away_port = free_port(), free_port(), free_port()
    upstreams = {"app": {"url": f"http://127.0.0.1:{port}"}}
    async with gateway_under_test(database_url, upstreams=upstreams) as gateway:
        user = (await gateway.get("/users/current", bearer(mint_token()))).json()
        with (
            application(tmp_path / "app", gateway.port, port),
            application(tmp_path / "other", gateway.port, other_port, audience="other"),
            application(tmp_path / "away", free_port(), away_port),
        ):
            known = await gateway.get("/reports", bearer(mint_token()))
            anonymous = await gateway.get("/public/reports")
            await gateway.reload(upstreams={"app": {"url": gateway.upstream.url}})
            await gateway.get("/x", bearer(mint_token()))
            line = f"X-Actor-Assertion: {gateway.upstream.received[-1].one('X-Actor-Assertion')}"
            same, foreign, unknown = [await straight(place, line) for place in (port, other_port, away_port)]
            forged = await straight(port, "X-Actor-Assertion: a.b.c")

    assert (known.status, known.json()) == (200, {"organization": user["organization"]["id"], "reader": user["id"]})
    assert same.json() == known.json()
    assert (anonymous.status, foreign.status, forged.status) == (401, 401, 401)
    assert (unknown.status, unknown.json()["code"]) == (503, "keys_unavailable")
