"""Starting servers on chosen cores, and reading what they cost from /proc (Linux)."""

import os
import resource
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SYSTEM_CORE, LOAD_CORE = "0", "1"
"""The measured system has the first core to itself; its upstream and the load share the second."""
START_S, END_S = 30.0, 30.0


def program(name: str) -> str:
    """Find a program: one of a Python package in this environment first, then Debian's.

    Raises:
        SystemExit: It is missing.
    """
    folders = (sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin")
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise SystemExit(f"benchmarks need {name}; `make bench` installs it, or says how")
    return found


def allow_many_files() -> int:
    """Raise the soft limit on open files for this process and its children; gives the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextmanager
def started(command: list[str], port: int, cores: str, folder: Path, **environment: str) -> Iterator[int]:
    """Run a server on some cores until the block ends; gives its pid once it listens.

    Its output goes to a file in the folder, named after the port, and is shown when it does not start.

    Raises:
        SystemExit: It ended, or did not listen in time.
    """
    log = folder / f"{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", cores, *command],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + START_S
        while not listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(command[:3])} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def tree(pids: Iterable[int]) -> list[int]:
    """All processes that these are and have, parents first."""
    found = list(pids)
    for pid in found:  # grows while it is walked
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found.extend(int(word) for word in children.read_text().split())
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time that these processes and their children have used so far, in user and kernel mode.

    The sum of `utime` and `stime`, from where the kernel keeps it in nanoseconds: a thousand handshakes take an nginx
    three of the ticks in which those two are told. Threads that ended are not in it; none of the systems ends any.
    """
    spent = 0
    for pid in tree(pids):
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            spent += int(thread.read_text().split()[0])
    return spent / 1e9


@dataclass(frozen=True, slots=True)
class Memory:
    """What processes hold, in KiB.

    Attributes:
        rss: Resident pages, those that several share counted in each.
        pss: The same, a page that n share counted as 1/n in each: over a tree, what the tree costs.
        own: Of the latter, what comes from no file: the kernel may drop and reload a program's code at any time, so
            growth is read from this.
    """

    rss: int
    pss: int
    own: int


def memory_of(pids: Iterable[int]) -> Memory:
    """Sum up these processes and their children."""
    parts = [parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in tree(pids)]
    return Memory(*(sum(values) for values in zip(*((part.rss, part.pss, part.own) for part in parts), strict=True)))


def parse_rollup(text: str) -> Memory:
    """Read the `Name:   12 kB` lines of smaps_rollup."""
    lines = (line.split() for line in text.splitlines())
    sizes = {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) == 3 and words[2] == "kB"}
    return Memory(sizes["Rss"], sizes["Pss"], sizes["Pss_Anon"] + sizes["Pss_Shmem"])
