"""Compiles the request's way with mypyc: a hook of hatchling, for `pip install`, and a script, for `make`.

Without a C compiler, or where compiling fails, the sources run as they are; a warning says so.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

from gateway.compiled import HERE, MANIFEST, digests, is_fresh, sources  # noqa: E402

GROUP = "gateway.way"
"""Names the one library that holds all of them: calls between its modules are plain calls in C."""
OPTIONS = (
    # Types of other packages are left out even where they are installed: the same sources give the same code.
    "--config-file=",
    "--no-site-packages",
    "--ignore-missing-imports",
    "--follow-imports=silent",
    f"--python-version={sys.version_info.major}.{sys.version_info.minor}",
)


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the compiled modules beside their sources, and into the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless ACTORGATE_COMPILED=0 or nothing changed."""
        if self.target_name != "wheel" or os.environ.get("ACTORGATE_COMPILED") == "0":
            return
        if not is_fresh() and (reason := compile_way()) is not None:
            self.app.display_warning(f"the gateway is not compiled and runs at half its speed: {reason}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"] += [path.relative_to(ROOT).as_posix() for path in (*compiled(), MANIFEST)]


def compiled() -> list[Path]:
    """What lies in the tree for this Python."""
    return sorted(HERE.rglob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}"))


def compile_way() -> str | None:
    """Compile all modules in place; gives the reason when that cannot be done, and leaves the sources alone."""
    MANIFEST.unlink(missing_ok=True)
    for path in compiled():
        path.unlink()
    if not _has_compiler():
        return "there is no C compiler; on Debian: apt-get install gcc python3-dev"
    written = digests()
    with tempfile.TemporaryDirectory() as folder:
        command = (sys.executable, __file__, "extensions", folder)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - ourselves
    if done.returncode:
        return (done.stdout + done.stderr).strip()[-2000:]
    MANIFEST.write_text(json.dumps({"python": sys.implementation.cache_tag, "sources": written}, indent=1))
    return None


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CC", "cc").split(" ")[0], "gcc", "clang"))


def _build_extensions(folder: str) -> None:
    """Run mypyc and the C compiler, in a process of its own: both end the process when they fail."""
    from mypyc.build import mypycify
    from setuptools import setup  # type: ignore[import-untyped]

    os.environ["MYPY_CACHE_DIR"] = folder
    paths = [path.relative_to(ROOT).as_posix() for path in sources()]
    modules = mypycify([*OPTIONS, *paths], opt_level="3", debug_level="0", group_name=GROUP, target_dir=folder)
    setup(
        name="way",
        packages=[],
        ext_modules=modules,
        script_args=["--quiet", "build_ext", "--inplace", f"--build-temp={folder}", f"--build-lib={folder}"],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["extensions"]:
        _build_extensions(sys.argv[2])
    elif not is_fresh():
        print("make: compiling the request's way (half a minute; again only when its sources change)", flush=True)
        if reason := compile_way():
            print(f"make: not compiled, so the sources run, at half the speed: {reason}", file=sys.stderr)
            sys.exit(1 if _has_compiler() else 0)
