from pathlib import Path
from typing import Any

import pytest

from config.checks import complete
from config.model import Settings
from config.restart import changed_sections, until_restart
from tests.support.settings_files import PUBLISHABLE_KEY


def settings(**changes: Any) -> Settings:
    base: dict[str, Any] = {
        "clerk": {"publishable_key": PUBLISHABLE_KEY},
        "database": {"url": "postgresql://gateway@127.0.0.1/gateway"},
        "upstreams": {"app": {"url": "http://127.0.0.1:9000"}},
        "routes": [{"path": "/**", "auth": "required", "upstream": "app"}],
    }
    return complete(Settings.model_validate(base | changes), Path("/data"))


TLS = {"certificate": "/etc/a.pem", "key": "/etc/a.key"}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"listen": "127.0.0.1:9999"}, ("listen",)),
        ({"admin": {"listen": "127.0.0.1:9999"}}, ("admin.listen",)),
        ({"workers": 2}, ("workers",)),
        ({"fast_lane": False}, ("fast_lane",)),
        ({"data_dir": "/elsewhere"}, ("data_dir",)),
        ({"tls": TLS}, ("tls",)),
        ({"database": {"embedded": True}}, ("database",)),
        ({"listen": "127.0.0.1:9999", "workers": 2}, ("listen", "workers")),
    ],
)
def test_what_cannot_change_keeps_its_running_value_and_is_named(
    changes: dict[str, Any], names: tuple[str, ...]
) -> None:
    running = settings()

    kept, waiting = until_restart(running, settings(**changes))

    assert waiting == names
    assert kept == running


def test_everything_else_is_taken() -> None:
    wanted = settings(
        drain_grace="1s",
        hosts=["a.example"],
        database={"url": "postgresql://other@127.0.0.1/gateway", "pool_size": 3},
        admin={"listen": "127.0.0.1:9464"},
    )

    assert until_restart(settings(), wanted) == (wanted, ())


def test_other_files_of_tls_are_taken() -> None:
    wanted = settings(tls=TLS | {"certificate": "/etc/b.pem"})

    assert until_restart(settings(tls=TLS), wanted) == (wanted, ())


def test_a_public_url_of_its_own_is_taken_though_the_port_waits() -> None:
    kept, _ = until_restart(settings(), settings(listen="127.0.0.1:9999", public_url="https://a.example"))

    assert (kept.public_url, str(kept.listen)) == ("https://a.example", "127.0.0.1:8080")


def test_changed_sections_are_named_without_their_values() -> None:
    other = settings(hosts=["a.example"], secrets={"master_key": "m" * 40})

    assert changed_sections(settings(), other) == ("hosts", "secrets")
    assert changed_sections(other, other) == ()
