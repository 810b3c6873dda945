"""A real Chromium, driven through `chromedriver` over its wire (W3C WebDriver, https://www.w3.org/TR/webdriver2/).

The few commands we use are less than a client library that would look for browsers to download.
"""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.programs import program_named, until

DEADLINE_S = 60.0
END_DEADLINE_S = 20.0
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver §11: the name under which answers carry an element
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # containers have little of it
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class CommandFailed(Exception):
    """The driver refused a command; the message is its own."""


class Browser:
    """One window."""

    def __init__(self, session_url: str) -> None:
        self._session_url = session_url

    def open(self, url: str) -> None:
        self._post("url", url=url)

    @property
    def url(self) -> str:
        """Where the window is."""
        return str(self._ask("GET", "url"))

    def text(self, css: str = "body") -> str:
        """The text a reader sees in the first such element."""
        return str(self._ask("GET", f"element/{self._find('css selector', css)}/text"))

    def texts(self, css: str) -> list[str]:
        """The texts of all such elements, in order."""
        found: list[str] = self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", css)
        return found

    def table(self) -> dict[str, str]:
        """Rows of all tables of the page, by their first cell in lower case."""
        names, values = self.texts("tbody th"), self.texts("tbody td:nth-child(2)")
        return {name.lower(): value for name, value in zip(names, values, strict=True)}

    def json(self) -> Any:
        """The JSON document the window shows."""
        return json.loads(self.texts("pre")[0])

    def click(self, css: str) -> None:
        """Click what stays on the page."""
        self._click("css selector", css)

    def submit(self, css: str) -> None:
        """Click a form's button and wait for the page it leads to."""
        with self._leaving():
            self._click("css selector", css)

    def follow(self, words: str) -> None:
        """Click the link with these words and wait for the page it leads to."""
        with self._leaving():
            self._click("link text", words)

    def leave(self, script: str, *arguments: Any) -> None:
        """Run a script that leads to another page and wait for that page."""
        with self._leaving():
            self.run(script, *arguments)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page and give what it returns; a promise is waited for."""
        return self._post("execute/sync", script=script, args=list(arguments))

    def forget(self) -> None:
        """Drop all cookies and stored console lines."""
        self._develop("Network.clearBrowserCookies")
        self.console()

    def grant(self, origin: str, *permissions: str) -> None:
        self._develop("Browser.grantPermissions", origin=origin, permissions=list(permissions))

    def console(self) -> list[str]:
        """Warnings and errors on the console since the last call."""
        entries = self._post("se/log", type="browser")
        return [entry["message"] for entry in entries if entry["level"] in {"WARNING", "SEVERE"}]

    @contextmanager
    def _leaving(self) -> Iterator[None]:
        """Wait for another document: the driver's own waiting gives up at redirects between origins."""
        self.run("window.lookedAt = true")
        yield
        until(lambda: self.run("return window.lookedAt === undefined && document.readyState === 'complete'"))

    def _develop(self, command: str, **parameters: Any) -> None:
        self._post("goog/cdp/execute", cmd=command, params=parameters)

    def _find(self, strategy: str, selector: str) -> str:
        return str(self._post("element", using=strategy, value=selector)[_ELEMENT])

    def _click(self, strategy: str, selector: str) -> None:
        self._post(f"element/{self._find(strategy, selector)}/click")

    def _post(self, command: str, **parameters: Any) -> Any:
        return self._ask("POST", command, parameters)

    def _ask(self, method: str, command: str, parameters: dict[str, Any] | None = None) -> Any:
        return _ask(method, f"{self._session_url}/{command}", parameters)


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Run a browser with a profile of its own in `folder`; nothing of it lives on."""
    program = program_named("chromium")
    with _driver(program_named("chromedriver"), folder) as url:
        flags = [*_FLAGS, f"--user-data-dir={folder / 'profile'}"]
        wanted = {
            "goog:chromeOptions": {"binary": program, "args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": DEADLINE_S * 1000, "pageLoad": DEADLINE_S * 1000, "implicit": 5000},
        }
        session = _ask("POST", f"{url}/session", {"capabilities": {"alwaysMatch": wanted}})
        session_url = f"{url}/session/{session['sessionId']}"
        try:
            yield Browser(session_url)
        finally:
            _ask("DELETE", session_url)


@contextmanager
def _driver(program: str, folder: Path) -> Iterator[str]:
    """Run chromedriver, and all it starts in one process group, on a port of the system's choice."""
    log = (folder / "chromedriver.log").open("w")
    process = subprocess.Popen(
        [program, "--port=0"],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
        env=os.environ | {"HOME": str(folder)},  # the browser keeps crash reports and caches at home
    )
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{_announced_port(iter(process.stdout))}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(END_DEADLINE_S)
        finally:
            _kill_group(process.pid)
            process.wait()
            process.stdout.close()
            log.close()


def _kill_group(group: int) -> None:
    """End what is left of a group: a browser that hangs outlives its driver."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _announced_port(lines: Iterator[str]) -> int:
    for line in lines:
        if "started successfully on port" in line:
            return int(line.rstrip().rstrip(".").rpartition(" ")[2])
    raise AssertionError("chromedriver ended before it listened")


def _ask(method: str, url: str, parameters: dict[str, Any] | None = None) -> Any:
    data = None if parameters is None else json.dumps(parameters).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=2 * DEADLINE_S) as response:
            return json.load(response)["value"]
    except urllib.error.HTTPError as error:
        with error:
            problem = json.load(error)["value"]
        raise CommandFailed(f"{problem['error']}: {problem['message']}") from error
