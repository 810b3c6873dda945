"""What is shipped: the wheel works from any folder, and the image holds no more than it needs."""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.settings_files import MASTER_KEY, VALID, write

ROOT = Path(__file__).parent.parent
DEADLINE_S = 120
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Installed:
    """The wheel in an environment of its own."""

    command: Path
    site: Path


def done(*words: str | Path, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without the settings of whoever runs the tests."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(("GW_", "PYTHON"))}
    return subprocess.run(
        words,
        cwd=folder,
        env={**inherited, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1", **environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel and install it, without an index: its dependencies are those of the tests' own environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip")
    built = done(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT, folder=folder)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env/bin/python"
    put = done(*pip, "--python", python, "install", "--no-deps", wheel, folder=folder)
    assert put.returncode == 0, put.stderr
    (site,) = (folder / "env/lib").glob("python*/site-packages")
    # A path in a .pth file is not searched for .pth files in turn, so the editable install there stays unseen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return Installed(folder / "env/bin/gateway", site)


def test_installed_command_checks_settings_from_another_folder(installed: Installed, tmp_path: Path) -> None:
    write(tmp_path, VALID)

    ran = done(installed.command, "check", folder=tmp_path, GW_SECRETS__MASTER_KEY=MASTER_KEY)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "/**" in ran.stdout


def test_installed_command_prints_the_schema_from_another_folder(installed: Installed, tmp_path: Path) -> None:
    ran = done(installed.command, "schema", folder=tmp_path)

    assert ran.returncode == 0
    assert '"routes"' in ran.stdout


def test_wheel_holds_all_files_of_the_packages_and_nothing_else(installed: Installed) -> None:
    def files(folder: Path) -> set[Path]:
        found = (path for room in ("config", "gateway", "provisioning") for path in (folder / room).rglob("*"))
        return {path.relative_to(folder) for path in found if path.is_file() and "__pycache__" not in path.parts}

    assert files(installed.site) == files(ROOT)
    assert {path.name for path in installed.site.iterdir() if path.is_dir()} - {"__pycache__"} == {
        "config",
        "gateway",
        "provisioning",
        *(path.name for path in installed.site.glob("actorgate-*.dist-info")),
    }


def stages() -> list[dict[str, list[str]]]:
    """Read the Dockerfile: for each stage the arguments by instruction, in order."""
    found: list[dict[str, list[str]]] = []
    lines = (line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            found.append({})
        if instruction:
            found[-1].setdefault(instruction, []).append(arguments)
    return found


def test_image_is_slim_and_of_one_python_in_both_stages() -> None:
    build, last = stages()

    assert build["FROM"] == ["python:3.11-slim AS build"]
    assert last["FROM"] == ["python:3.11-slim"]


def test_image_runs_as_a_numeric_user_who_is_not_root() -> None:
    (user,) = stages()[-1]["USER"]

    assert all(int(number) > 0 for number in user.split(":"))


def test_last_stage_installs_nothing_and_keeps_no_installer() -> None:
    last = stages()[-1]
    commands = [shlex.split(command) for run in last["RUN"] for command in run.split("&&")]

    assert last["COPY"] == ["--from=build /opt/actorgate /opt/actorgate"]
    assert not {"install", "apt-get", "apk", "curl"} & {word for command in commands for word in command}
    assert ["python", "-m", "pip", "uninstall", "--yes", "setuptools", "wheel", "pip"] in commands


def test_image_serves_and_asks_for_its_own_health() -> None:
    last = stages()[-1]

    assert last["ENTRYPOINT"] == ['["gateway"]']
    assert last["CMD"] == ['["serve", "-c", "/etc/actorgate/gateway.yaml"]']
    assert last["HEALTHCHECK"][0].endswith('CMD ["gateway", "health"]')
    assert "GW_CONFIG=/etc/actorgate/gateway.yaml" in last["ENV"][0]


def test_build_copies_all_the_wheel_is_made_of_and_the_context_offers_it() -> None:
    copied = {word for arguments in stages()[0]["COPY"] for word in arguments.split(" ")[:-1]}
    offered = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    assert copied == {"pyproject.toml", "hatch_build.py", "README.md", "config", "gateway", "provisioning"}
    assert {line.removeprefix("!") for line in offered if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


def test_package_for_upstreams_is_a_wheel_of_its_own(tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip")
    built = done(
        *pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT / "sdk/python", folder=tmp_path
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("actorgate_upstream-*.whl")

    names = set(zipfile.ZipFile(wheel).namelist())

    assert {"actorgate_upstream/asgi.py", "actorgate_upstream/aiohttp.py", "actorgate_upstream/py.typed"} <= names
    assert not [name for name in names if name.startswith(("gateway/", "provisioning/", "tests/"))]
