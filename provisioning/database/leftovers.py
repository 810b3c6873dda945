"""What an earlier life of the embedded PostgreSQL may have left: a dying server, its pid file, temporary folders.

Everything here runs while the lock of the data folder is held, so no gateway can own what is found.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from provisioning.errors import EmbeddedPostgresFailed

_PATIENCE_S = 8.0


def end_previous_server(pgdata: Path) -> None:
    """End a server that still runs over this cluster and remove a pid file that names a stranger. Blocks.

    PostgreSQL trusts its pid file as long as *any* process of its user has that number, so after a crash and a reused
    number it would refuse to start.

    Raises:
        EmbeddedPostgresFailed: It runs and does not end.
    """
    pid_file = pgdata / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + _PATIENCE_S
    asked = 0
    while _serves(pid, pgdata):
        if time.monotonic() > deadline:
            raise EmbeddedPostgresFailed(f"process {pid} still serves {pgdata} and does not end; stop it by hand")
        wanted = signal.SIGINT if time.monotonic() < deadline - _PATIENCE_S / 2 else signal.SIGQUIT
        if wanted != asked:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, wanted)
            asked = wanted
        time.sleep(0.02)
    pid_file.unlink(missing_ok=True)


def _serves(pid: int, pgdata: Path) -> bool:
    """Whether this process is a PostgreSQL over this cluster, by its own rule its working directory."""
    if sys.platform == "linux":
        process = Path("/proc") / str(pid)
        try:
            return (process / "comm").read_text().strip() == "postgres" and (process / "cwd").samefile(pgdata)
        except OSError:
            return False
    said = subprocess.run(  # noqa: S603
        ["/bin/ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False
    ).stdout
    return "postgres" in said and str(pgdata) in said


def remove_folders(names: Iterable[str], prefix: str) -> None:
    """Remove folders an earlier life noted, but only such as it could have made: by name and by place."""
    for name in names:
        folder = Path(name)
        if folder.parent == Path(tempfile.gettempdir()) and folder.name.startswith(prefix):
            shutil.rmtree(folder, ignore_errors=True)
