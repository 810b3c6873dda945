"""`gateway dev` as a process: started, read, pasted from, and ended as a person would."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_DEADLINE_S = 60.0
END_DEADLINE_S = 30.0
LAST_LINE = "Ctrl-C ends it."


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class DevProcess:
    """A run that has said it is up.

    Attributes:
        lines: What it printed, in order.
    """

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    @property
    def commands(self) -> list[str]:
        return [line for line in self.lines if line.startswith("curl ")]

    def command(self, *parts: str) -> str:
        """The first printed command that holds all the parts."""
        return next(line for line in self.commands if all(part in line for part in parts))

    def address(self, label: str) -> str:
        return next(line.split()[1] for line in self.lines if line.startswith(label))

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(END_DEADLINE_S)
        if self.process.stdout:
            self.process.stdout.close()
        return code

    def descendants(self) -> set[int]:
        """Ids of its child processes and theirs."""
        parents = dict(_process_parents())
        found: set[int] = set()
        while more := {pid for pid, parent in parents.items() if parent in found | {self.process.pid}} - found:
            found |= more
        return found


def start_dev(data_dir: Path, port: str = "0") -> DevProcess:
    """Start `gateway dev`, on ports of the system's choice unless one is given, and wait until it has greeted."""
    command = [sys.executable, "-m", "gateway", "dev", "--port", port, "--data-dir", str(data_dir)]
    # Standard error is inherited: pytest shows it when a test fails, and nothing can fill a pipe nobody reads.
    run = DevProcess(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=data_dir.parent))
    assert run.process.stdout
    for line in run.process.stdout:
        run.lines.append(line.rstrip("\n"))
        if run.lines[-1] == LAST_LINE:
            return run
    run.end()
    raise AssertionError(f"gateway dev ended with {run.process.returncode} before it was up: {run.lines}")


def paste(line: str) -> Answer:
    """Run a printed `curl` line and read the answer, with `curl` itself or, where there is none, in its place."""
    words = [word for word in shlex.split(line)[1:] if word not in {"-sS", "-i"}]
    if shutil.which("curl"):
        ran = subprocess.run(["curl", "-sS", "-i", *words], capture_output=True, text=True, check=True, timeout=30)
        head, _, body = ran.stdout.partition("\n\n")
        return _answer(int(head.split()[1]), [line.split(":", 1) for line in head.splitlines()[1:]], body)
    options = list(zip(words[::2], words[1::2], strict=False))
    fields = dict(value.split(": ", 1) for option, value in options if option == "-H")
    data = next((value.encode() for option, value in options if option == "-d"), None)
    return get(words[-1], fields, data)


def get(url: str, headers: dict[str, str], data: bytes | None = None) -> Answer:
    """One exchange without following redirects."""
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(urllib.request.Request(url, data, headers), timeout=30) as response:
            return _answer(response.status, list(response.headers.items()), response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, list(error.headers.items()), error.read().decode())


def cookies_after_sign_in(issuer_url: str, persona: str) -> str:
    """Sign in at the page and build the Cookie field a browser would then send."""

    keeper = _CookieKeeper()
    try:
        urllib.request.build_opener(keeper).open(f"{issuer_url}/sign-in", f"persona={persona}".encode(), timeout=30)
    except urllib.error.HTTPError as error:  # the redirect, not followed
        error.close()
    return "; ".join(keeper.cookies)


def all_gone(pids: set[int]) -> bool:
    """Whether none of the processes lives any more, within the deadline."""
    deadline = time.monotonic() + END_DEADLINE_S
    while time.monotonic() < deadline:
        if not pids & {pid for pid, _ in _process_parents()}:
            return True
        time.sleep(0.05)
    return False


class _CookieKeeper(urllib.request.HTTPRedirectHandler):
    def __init__(self) -> None:
        self.cookies: list[str] = []

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        self.cookies = [line.partition(";")[0] for line in headers.get_all("Set-Cookie")]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


def _answer(status: int, headers: list[Any], body: str) -> Answer:
    return Answer(status, {name.strip().lower(): value.strip() for name, value in headers}, body)


def _process_parents() -> list[tuple[int, int]]:
    """Every living process with its parent; one that has ended and only waits to be noticed does not live."""
    if not Path("/proc/self/stat").exists():
        listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
        rows = [line.split() for line in listing.stdout.splitlines()]
        return [(int(pid), int(parent)) for pid, parent, state in rows if not state.startswith("Z")]
    living = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended while we looked
                continue
            if state != "Z":
                living.append((int(folder.name), int(parent)))
    return living
