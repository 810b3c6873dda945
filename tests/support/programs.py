"""Programs of other people that tests run: found or named as missing, and waited for."""

import os
import shutil
import time
from collections.abc import Callable

DEADLINE_S = 60.0
_ALSO_IN = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin")  # servers are not on everybody's PATH


def program_named(name: str) -> str:
    """Find a program's path; a missing one fails the test, for a skipped test shows nothing."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_ALSO_IN)))
    assert found, f"{name} is missing: run `make test-edge`, which installs it or says how"
    return found


def until(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Wait, without an event loop, for what another program does in its own time."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
