"""Whether a system's answers are right. Figures of one that does not do its work count for nothing."""

import http.client
import json
from collections.abc import Mapping

from benchmarks.scenarios import HOST, LARGE_ANSWER, SMALL_ANSWER
from benchmarks.surroundings import Surroundings
from benchmarks.systems import Running, System

_FORGED = {"X-Actor-Id": "usr_forged", "X-Organization-Id": "org_forged"}


class Wrong(Exception):
    """A system does not do what it is measured for."""


def ask(port: int, path: str, token: str | None, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    """Send one request, with a forged identity, on a connection of its own; gives status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Host": HOST, **_FORGED} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def check(system: System, running: Running, place: Surroundings) -> None:
    """Ask a system what it will be measured with, and what it must refuse; every token is seen once by this.

    Raises:
        Wrong: An answer is not right.
    """
    for token in place.tokens:
        _expect(system, "a small answer", ask(running.port, "/api/things?page=1", token), SMALL_ANSWER)
    token = place.tokens[0]
    _expect(system, "a large answer", ask(running.port, "/large", token), LARGE_ANSWER)
    posted = ask(running.port, "/api/things", token, "POST", b"x" * 16_384)
    _expect(system, "a posted body", posted, SMALL_ANSWER)
    if system.verifies:
        check_identity(system.title, json.loads(ask(running.port, "/seen", token)[1]))
        for what, bad in {"without a token": None, "with a bad token": token[:-8] + "AAAAAAAA"}.items():
            status, _ = ask(running.port, "/seen", bad)
            if status != 401:
                raise Wrong(f"{system.title}: a request {what} was answered with {status}")


def _expect(system: System, what: str, answer: tuple[int, bytes], length: int) -> None:
    status, body = answer
    if status != 200 or len(body) != length:
        raise Wrong(f"{system.title}: {what} came as status {status} with {len(body)} bytes instead of {length}")


def check_identity(title: str, seen: Mapping[str, str]) -> None:
    """Judge what the upstream saw when a client with a good token also claimed to be somebody.

    Raises:
        Wrong: The claim or the credential reached the upstream, or nobody told it who calls.
    """
    if any(forged in value for forged in _FORGED.values() for value in seen.values()):
        raise Wrong(f"{title}: the upstream saw a forged identity: {seen['actor']!r}, {seen['organization']!r}")
    if not seen["actor"]:
        raise Wrong(f"{title}: the upstream was not told who calls")
    if seen["authorization"]:
        raise Wrong(f"{title}: the credential reached the upstream")
