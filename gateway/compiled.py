"""The request's way in machine code: which modules mypyc compiles, and when what it made of them is taken.

The sources are the program; compiled they do the same in half the time (docs/decisions/014). What was compiled is taken
while it is of these very sources, so whoever edits one runs the sources until the next `make`, never a mixture.
ACTORGATE_COMPILED=0 takes the sources in any case.
"""

import json
import os
import sys
from collections.abc import Sequence
from hashlib import sha256
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
MANIFEST = HERE / "compiled.json"
"""Written beside what was compiled: the SHA-256 of each source, by its name here."""
ROOMS = (
    "actors/actor.py",
    "actors/beliefs.py",
    "actors/callers.py",
    "api/endpoints.py",
    "credentials",
    "edge",
    "identity/assertion.py",
    "identity/request_head.py",
    "listen/aiohttp_lane.py",
    "listen/fast_connection.py",
    "listen/fast_lane.py",
    "listen/plain_request.py",
    "listen/relay.py",
    "pipeline.py",
    "policy/cors.py",
    "policy/cross_site.py",
    "policy/decision.py",
    "policy/origins.py",
    "policy/patterns.py",
    "policy/routes.py",
    "rooms.py",
    "telemetry/metrics.py",
    "upstream/answer.py",
    "upstream/connection.py",
    "upstream/exchange.py",
    "upstream/plain_answer.py",
    "upstream/pool.py",
    "upstream/reader.py",
    "upstream/rotation.py",
    "upstream/upgrade.py",
    "verify/principal.py",
    "way.py",
)
"""What a known caller's request passes, and what shares classes with it; all or none of it runs compiled."""


def sources() -> list[Path]:
    """The modules to compile, in order."""
    found = [path for room in ROOMS for path in ((HERE / room).glob("*.py") if "." not in room else (HERE / room,))]
    return sorted(path for path in found if path.name != "__init__.py")


def digests() -> dict[str, str]:
    """The SHA-256 of each module's source, by its path from here."""
    return {path.relative_to(HERE).as_posix(): sha256(path.read_bytes()).hexdigest() for path in sources()}


def is_fresh() -> bool:
    """Tell whether everything was compiled from these very sources, for this Python."""
    try:
        written = json.loads(MANIFEST.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(written, dict) and written == {"python": sys.implementation.cache_tag, "sources": digests()}


class _SourcesAlone:
    """Finds the gateway's modules as sources, whatever lies beside them (a meta path finder)."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module of ours."""
        if path is None or not name.startswith("gateway."):
            return None
        found = (FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name, target) for folder in path)
        return next((spec for spec in found if spec is not None), None)


def choose() -> bool:
    """Take what was compiled, or keep to the sources; before anything else of the gateway is imported."""
    taken = os.environ.get("ACTORGATE_COMPILED") != "0" and is_fresh()
    if not taken:
        sys.meta_path.insert(0, _SourcesAlone)
    return taken
