"""Settings built in code, ports, and the lines that are printed."""

import shlex
from contextlib import closing
from pathlib import Path

import pytest

from config.publishable_key import parse_publishable_key
from gateway.dev.command import run_dev
from gateway.dev.folder import DevFailed
from gateway.dev.place import Place, examples
from gateway.dev.ports import listening_socket, listening_socket_preferring, listening_socket_searching, port_of
from gateway.dev.printed import welcome
from gateway.dev.settings import check_upstream, dev_settings
from tests.dev.places import a_place


def test_settings_name_the_local_issuer_and_hide_their_secrets(tmp_path: Path) -> None:
    settings = dev_settings(
        a_place(),
        data_dir=tmp_path,
        database_url="postgresql:///hush",
        master_key="hush" * 8,
        secret_key="sk_test_hush",
        instance_id="ins_x",
    )

    assert settings.clerk.issuer == ("http://127.0.0.1:5555",)
    assert settings.clerk.authorized_parties == ("http://127.0.0.1:8080", "http://localhost:8080")
    assert str(settings.listen) == "127.0.0.1:8080"
    assert [(route.path, route.auth) for route in settings.routes] == [
        ("/public/**", "none"),
        ("/optional/**", "optional"),
        ("/admin/**", "required"),
        ("/reports/**", "required"),
        ("/**", "required"),
    ]
    assert "hush" not in repr(settings)


def test_publishable_key_is_a_test_instance_s_of_the_issuer() -> None:
    key = parse_publishable_key(a_place().publishable_key)

    assert key.frontend_api == "127.0.0.1:5555"
    assert key.instance_type == "development"
    assert a_place().cookie_suffix == key.cookie_suffix


@pytest.mark.parametrize("url", ["http://127.0.0.1:3000", "http://127.0.0.1:3000/", "http://backend"])
def test_upstream_is_an_http_origin(url: str) -> None:
    assert check_upstream(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["", "3000", "127.0.0.1:3000", "https://a", "http://", "http://a/b", "http://a?b", "http://u:p@a", "http://a:x"],
)
def test_other_upstreams_are_refused(url: str) -> None:
    with pytest.raises(DevFailed, match="write --upstream as"):
        check_upstream(url)


def test_taken_port_is_left_alone() -> None:
    with closing(listening_socket(0)) as taken:
        port = port_of(taken)
        with closing(listening_socket_preferring(port)) as other:
            assert port_of(other) != port
            assert listening_socket_searching(port, 1) is None


def test_free_port_is_kept() -> None:
    with closing(listening_socket(0)) as first:
        port = port_of(first)

    with closing(listening_socket_preferring(port)) as second:
        assert port_of(second) == port


def test_every_command_is_one_plain_line_at_the_margin() -> None:
    place = Place(a_place().ports, "http://127.0.0.1:9464", "http://127.0.0.1:5556", token_command=("/a b/gateway",))
    shown = examples(place, "alice", "eyJ.e30.x")

    lines = welcome(place, shown, "/data")

    commands = [line for line in lines if line.startswith("curl ")]
    assert len(commands) == len(shown) - 1
    assert "'/a b/gateway' alice" in lines
    assert all("\n" not in line and "|" not in line and "$" not in line for line in lines)
    assert all(shlex.split(command)[-1].startswith("http://127.0.0.1:") for command in commands)


async def test_bad_upstream_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = await run_dev(upstream="ftp://x", port=0, data_dir=tmp_path)

    captured = capsys.readouterr()
    assert code == 1
    assert captured.err.startswith("gateway dev: write --upstream as")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
