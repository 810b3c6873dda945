"""M: settings that cannot be used change nothing, and say so."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from config.model import Settings
from config.watch import Source
from gateway.cli import app
from tests.support.certificates import Authority
from tests.support.gateway import MASTER_KEY, ROUTES, GatewayUnderTest, merged, mint_token
from tests.support.jwks_server import serve_jwks, status_500
from tests.support.wire import bearer

SECRET = "sk_live_not_for_logs"
Bad = Callable[[dict[str, Any]], str]


def changed(**changes: Any) -> Bad:
    return lambda good: json.dumps(merged(good, changes), indent=1)


def without_issuer(good: dict[str, Any]) -> str:
    clerk = {name: value for name, value in good["clerk"].items() if name not in {"issuer", "publishable_key"}}
    return json.dumps({**good, "clerk": clerk}, indent=1)


BAD: dict[str, Bad] = {
    "syntax": lambda good: json.dumps(good)[:-1] + ", routes: [",
    "empty": lambda _: "",
    "a list": lambda _: "- listen",
    "unknown key": changed(rotes=[]),
    "missing issuer": without_issuer,
    "rule without authenticator": changed(
        routes=[{"path": "/**", "auth": "none", "roles": ["ADMIN"], "upstream": "app"}]
    ),
    "no routes": changed(routes=[]),
    "trust in everybody": changed(trusted_proxies=["0.0.0.0/0"]),
    "no master key": changed(secrets={"master_key": None}),
}


def put(folder: Path, text: str) -> Source:
    path = folder / "gateway.yaml"
    path.write_text(text)
    return Source(path, {})


async def success(gateway: GatewayUnderTest) -> float:
    return await gateway.metric("gateway_config_last_reload_success")


async def count(gateway: GatewayUnderTest, outcome: str) -> float:
    return await gateway.metric("gateway_config_reloads_total", outcome=outcome)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_m03_bad_settings_keep_the_old_ones_until_good_ones_come(
    gateway: GatewayUnderTest, tmp_path: Path, bad: Bad
) -> None:
    written = merged(gateway.written, {"clerk": {"secret_key": SECRET}})
    before = gateway.reloader.current
    source = put(tmp_path, bad(written))
    with capture_logs() as logs:
        assert not await gateway.reloader.reload(source.load)

    assert gateway.reloader.current is before
    assert [(await gateway.get("/x", *lines)).status for lines in ((), (bearer(mint_token()),))] == [401, 200]
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("settings refused", "error")
    assert all(problem.startswith(f"{source.path}:") for problem in line["problems"])
    assert not {secret for secret in (SECRET, MASTER_KEY) if secret in json.dumps(logs)}
    assert (await success(gateway), await count(gateway, "refused")) == (0, 1)

    assert await gateway.reloader.reload(put(tmp_path, json.dumps(written)).load)
    assert (await success(gateway), await count(gateway, "ok")) == (1, 1)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_m03_a_cold_start_with_bad_settings_is_refused(tmp_path: Path, bad: Bad) -> None:
    good: Mapping[str, Any] = {
        "clerk": {"issuer": ["https://a.example"], "jwks_url": "https://a.example/jwks"},
        "database": {"url": "postgresql://gateway@127.0.0.1:1/gateway"},
        "upstreams": {"app": {"url": "http://127.0.0.1:9000"}},
        "routes": ROUTES,
        "secrets": {"master_key": MASTER_KEY},
    }

    assert app(["serve", "-c", str(put(tmp_path, bad(dict(good))).path)]) == 2


async def test_m03_the_log_says_where_the_mistake_is(gateway: GatewayUnderTest, tmp_path: Path) -> None:
    source = put(tmp_path, "clerk:\n  isuer: https://a.example\n" + json.dumps(gateway.written)[1:-1])
    source.path.write_text("upstreams:\n  app:\n    url: http://127.0.0.1:9000\n    ulr: x\nroutes: []\nclerk: {}\n")
    with capture_logs() as logs:
        await gateway.reloader.reload(source.load)

    problems = logs[0]["problems"]
    assert any(problem.startswith(f"{source.path}:4:5 upstreams.app.ulr: ") for problem in problems), problems


async def test_m03_a_vanished_file_keeps_the_old_settings(gateway: GatewayUnderTest, tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert not await gateway.reloader.reload(Source(tmp_path / "gone.yaml", {}).load)

    assert "there is no such file" in logs[0]["problems"][0]
    assert (await gateway.get("/x")).status == 401
    assert await success(gateway) == 0


async def test_signing_keys_that_cannot_be_had_keep_the_old_settings(gateway: GatewayUnderTest) -> None:
    before = gateway.reloader.current
    async with serve_jwks() as keys:
        keys.answer = status_500
        with capture_logs() as logs:
            assert not await gateway.reload(clerk={"jwks_url": keys.url})

    assert gateway.reloader.current is before
    assert [line["cause"] for line in logs if line["event"] == "reload failed"] == [
        "no signing keys can be had from clerk.jwks_url"
    ]
    assert (await success(gateway), await count(gateway, "failed")) == (0, 1)
    assert (await gateway.get("/x", bearer(mint_token()))).status == 200


async def test_keys_that_stay_need_not_answer(gateway: GatewayUnderTest) -> None:
    await gateway.get("/x", bearer(mint_token()))
    gateway.jwks.answer = status_500

    assert await gateway.reload(hosts=["app.example.test"])
    assert (await gateway.get("/x", bearer(mint_token()))).status == 200
    assert gateway.jwks.fetches == 1


async def test_a_mistake_of_ours_keeps_the_old_settings_and_the_gateway(gateway: GatewayUnderTest) -> None:
    def load() -> Settings:
        raise ZeroDivisionError

    with capture_logs() as logs:
        assert not await gateway.reloader.reload(load)

    assert [(line["event"], line["cause"]) for line in logs] == [("reload failed", "ZeroDivisionError")]
    assert (await gateway.get("/public/x")).status == 200


async def test_a_database_that_does_not_answer_keeps_the_old_settings(gateway: GatewayUnderTest) -> None:
    before = gateway.reloader.current
    with capture_logs() as logs:
        assert not await gateway.reload(database={"url": "postgresql://gateway:hush@127.0.0.1:1/gateway"})

    assert gateway.reloader.current is before
    assert "hush" not in json.dumps(logs)
    assert (await gateway.get("/x", bearer(mint_token()))).status == 200


async def test_authorities_that_cannot_be_read_keep_the_old_settings(gateway: GatewayUnderTest, tmp_path: Path) -> None:
    wanted = {"app": {"url": "https://127.0.0.1:9", "ca_file": str(tmp_path / "none.pem")}}

    assert not await gateway.reload(upstreams=wanted)
    assert (await gateway.get("/public/x")).status == 200


async def test_a_changed_file_of_authorities_replaces_the_upstream_alone(
    gateway: GatewayUnderTest, tmp_path: Path
) -> None:
    ca_file = tmp_path / "authorities.pem"
    ca_file.write_bytes(Authority(tmp_path).ca_file.read_bytes())
    wanted = {"secure": {"url": "https://127.0.0.1:9", "ca_file": str(ca_file)}}
    assert await gateway.reload(upstreams=wanted)
    one = gateway.reloader.current.sources
    assert await gateway.reload(upstreams=wanted)
    two = gateway.reloader.current.sources
    ca_file.write_bytes(Authority(tmp_path).ca_file.read_bytes())
    assert await gateway.reload(upstreams=wanted)
    three = gateway.reloader.current.sources

    assert one.upstreams["secure"] is two.upstreams["secure"] is not three.upstreams["secure"]
    assert one.upstreams["app"] is three.upstreams["app"]


async def test_what_needs_a_restart_is_told_and_the_rest_takes_effect(gateway: GatewayUnderTest) -> None:
    with capture_logs() as logs:
        assert await gateway.reload(
            listen="127.0.0.1:1", workers=1, data_dir="/elsewhere", drain_grace="3s", hosts=["a.example"]
        )

    assert [line["keys"] for line in logs if line["event"] == "settings need a restart"] == [("listen", "data_dir")]
    assert gateway.reloader.current.settings.drain_grace == 3.0
    assert (await gateway.get("/x")).status == 421
