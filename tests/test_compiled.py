"""The request's way compiled: taken while it is of these very sources, left alone in every doubt."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.compiled import HERE, MANIFEST, ROOMS, is_fresh, sources

ROOT = Path(__file__).parent.parent
TELL = "import gateway, gateway.pipeline as way; print(gateway.IS_COMPILED, way.__file__.rpartition('.')[2])"


def form_taken(root: Path, **environ: str) -> str:
    """Ask a new process which form of the pipeline it runs."""
    ran = subprocess.run(
        (sys.executable, "-c", TELL),
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "ACTORGATE_COMPILED": "1", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ran.stdout.strip() or ran.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A tree of the three packages, as it stands here, to edit."""
    for package in ("gateway", "provisioning", "config"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_every_room_to_compile_exists_and_holds_modules() -> None:
    assert all((HERE / room).exists() for room in ROOMS)
    assert len(sources()) > len(ROOMS)
    assert HERE / "pipeline.py" in sources()


def test_what_is_tested_here_was_compiled_if_it_can_be() -> None:
    # Without a C compiler there is nothing to take; with one, `make test` compiled before it came here.
    assert is_fresh() or shutil.which("cc") is None


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(HERE).as_posix())
def test_nothing_that_is_compiled_awaits_where_an_exception_is_handled(path: Path) -> None:
    # What is raised meanwhile takes the exception's place, and mypyc lets go of it twice: that ended the process.
    handlers = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Try)]
    parts = [part for node in handlers for part in (*node.handlers, *node.finalbody)]

    assert not [one for part in parts for one in ast.walk(part) if isinstance(one, ast.Await)]


def test_fresh_modules_are_taken(copy: Path) -> None:
    assert form_taken(copy) == ("True so" if is_fresh() else "False py")


def test_sources_run_when_they_are_asked_for(copy: Path) -> None:
    assert form_taken(copy, ACTORGATE_COMPILED="0") == "False py"


def test_an_edited_source_runs_with_all_its_neighbours(copy: Path) -> None:
    edited = copy / "gateway/edge/host.py"
    edited.write_text(edited.read_text() + "\n# edited\n")

    assert form_taken(copy) == "False py"


def test_a_new_source_leaves_nothing_compiled_in_force(copy: Path) -> None:
    (copy / "gateway/edge/another.py").write_text('"""New."""\n')

    assert form_taken(copy) == "False py"


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", json.dumps({"python": "cpython-311", "sources": {}})])
def test_a_manifest_that_cannot_be_believed_is_none(copy: Path, text: str) -> None:
    (copy / "gateway" / MANIFEST.name).write_text(text)

    assert form_taken(copy) == "False py"


def test_a_manifest_of_another_python_is_none(copy: Path) -> None:
    manifest = copy / "gateway" / MANIFEST.name
    written = {"python": "cpython-399", "sources": json.loads(manifest.read_text())["sources"]} if is_fresh() else {}
    manifest.write_text(json.dumps(written))

    assert form_taken(copy) == "False py"
