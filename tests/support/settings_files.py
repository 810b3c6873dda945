"""Settings files for tests: one that is valid, and a loader that gives back what was found."""

from collections.abc import Mapping
from pathlib import Path

from config.load import load, load_settings
from config.model import Settings
from config.problems import SettingsInvalid, SettingsProblem

MASTER_KEY = "q7Zt1vXw9Lk3Rb5Ny8Hs2Dm4Fc6Gj0Pa"
PUBLISHABLE_KEY = "pk_test_Zm9vLWJhci0xMy5jbGVyay5hY2NvdW50cy5kZXYk"

VALID = f"""\
listen: 127.0.0.1:8080
clerk: {{publishable_key: {PUBLISHABLE_KEY}, authorized_parties: [https://app.example.com]}}
database: {{url: postgresql://gateway@127.0.0.1/gateway}}
upstreams:
  app:
    url: http://127.0.0.1:9000
routes:
  - {{path: /**, auth: required, upstream: app}}
secrets: {{master_key: {MASTER_KEY}}}
"""


def write(folder: Path, text: str) -> Path:
    """Write `gateway.yaml` into `folder`."""
    path = folder / "gateway.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def settings_of(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    """Load settings for serving."""
    return load_settings(write(folder, text), environ or {}, for_serve=True)


def problems_of(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> tuple[SettingsProblem, ...]:
    """Give what is wrong with settings for serving; empty when nothing is."""
    return problems_in(write(folder, text), environ)


def problems_in(path: Path, environ: Mapping[str, str] | None = None) -> tuple[SettingsProblem, ...]:
    """Give what is wrong with a file of settings for serving; empty when nothing is."""
    try:
        load_settings(path, environ or {}, for_serve=True)
    except SettingsInvalid as invalid:
        return invalid.problems
    return ()


def keys_of(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Name the keys, or variables, something is wrong with."""
    return [problem.key or problem.file for problem in problems_of(folder, text, environ)]


def warned_of(folder: Path, text: str) -> dict[str, str]:
    """Give the warnings by key."""
    return {warning.key: warning.message for warning in load(write(folder, text), {}).warnings}
