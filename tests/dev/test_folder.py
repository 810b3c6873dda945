"""What is kept between two starts, and minting from it."""

import json
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dev.command import mint_token
from gateway.dev.folder import DevFailed, DevFolder, Ports, default_data_dir
from tests.dev.places import private_files

PORTS = Ports(8080, 5555, 5556)


@pytest.fixture
def folder(tmp_path: Path) -> DevFolder:
    folder = DevFolder(tmp_path / "deep" / "dev")
    folder.prepare()
    folder.remember(PORTS)
    return folder


def test_everything_kept_is_for_its_owner_alone(folder: DevFolder) -> None:
    modes = private_files(folder.path)

    assert set(modes) == {"signing_key.pem", "master_key", "secret_key", "ports.json"}
    assert set(modes.values()) == {0o600}


def test_folder_is_for_its_owner_alone(folder: DevFolder) -> None:
    mode = folder.path.stat().st_mode & 0o777

    assert mode == 0o700


def test_second_start_keeps_keys_secrets_and_ports(folder: DevFolder) -> None:
    again = DevFolder(folder.path)
    again.prepare()

    assert again.signing_key().jwks() == folder.signing_key().jwks()
    assert again.master_key() == folder.master_key()
    assert again.secret_key() == folder.secret_key()
    assert again.ports() == PORTS


def test_secrets_are_long_and_differ(folder: DevFolder) -> None:
    assert len(folder.master_key()) >= 32
    assert folder.secret_key().startswith("sk_test_")
    assert folder.master_key() not in folder.secret_key()


def test_token_minted_beside_a_run_verifies_with_its_keys(folder: DevFolder) -> None:
    token = mint_token("dave", "globex", folder.path)

    shown = jwt.PyJWKSet.from_dict(folder.signing_key().jwks()).keys[0]
    claims = jwt.decode(token, shown, algorithms=["RS256"], issuer="http://127.0.0.1:5555")
    assert claims["azp"] == "http://127.0.0.1:8080"
    assert claims["o"]["slg"] == "globex"
    assert claims["exp"] - claims["iat"] == 3600


@pytest.mark.parametrize(("persona", "organization"), [("nobody", None), ("bob", "globex"), ("", None)])
def test_token_of_nobody_is_refused_with_a_sentence(folder: DevFolder, persona: str, organization: str | None) -> None:
    with pytest.raises(DevFailed, match=r"no such persona|not in such an organization"):
        mint_token(persona, organization, folder.path)


def test_token_before_the_first_start_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DevFailed, match="run `gateway dev` once first"):
        mint_token("alice", None, tmp_path)


def test_broken_key_is_named_and_not_shown(folder: DevFolder) -> None:
    (folder.path / "signing_key.pem").write_text("hush")

    with pytest.raises(DevFailed, match=r"signing_key\.pem is not an RSA key") as caught:
        folder.signing_key()

    assert "hush" not in str(caught.value)


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(DevFailed, match="choose another with --data-dir"):
        DevFolder(tmp_path / "file" / "dev").prepare()


def test_user_s_data_folder_is_the_platform_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    assert default_data_dir() == tmp_path / "actorgate" / "dev"


def test_relative_data_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "here")

    assert default_data_dir().is_absolute()


numbers = st.one_of(st.integers(), st.none(), st.booleans(), st.floats(), st.text(max_size=3))
said = st.fixed_dictionaries({"gateway": numbers, "issuer": numbers, "demo": numbers})


@given(st.one_of(st.binary(max_size=40), said.map(lambda ports: json.dumps(ports).encode())))
def test_ports_are_read_whole_or_not_at_all(tmp_path_factory: pytest.TempPathFactory, kept: bytes) -> None:
    folder = DevFolder(tmp_path_factory.getbasetemp())
    (folder.path / "ports.json").write_bytes(kept)

    ports = folder.ports()

    assert ports is None or all(0 < port < 65536 for port in (ports.gateway, ports.issuer, ports.demo))
