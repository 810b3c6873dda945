"""Log lines: one JSON object each, without secrets."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from gateway.telemetry.logs import configure_logs


@pytest.fixture
def logs(capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[pytest.CaptureFixture[bytes]]:
    """Logs as `gateway serve` writes them; what they write can be read."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield capfdbinary
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def written(logs: pytest.CaptureFixture[bytes]) -> list[dict[str, object]]:
    return [json.loads(line) for line in logs.readouterr().out.splitlines()]


def fail(token: str) -> None:
    raise RuntimeError("something broke")


def test_l02_traceback_holds_no_local_variables(logs: pytest.CaptureFixture[bytes]) -> None:
    configure_logs()
    try:
        fail("eyJ-a-secret-token")
    except RuntimeError as error:
        structlog.get_logger().error("request failed", exc_info=error)

    (line,) = written(logs)
    assert "something broke" in json.dumps(line)
    assert "fail" in json.dumps(line)
    assert "eyJ-a-secret-token" not in json.dumps(line)


@pytest.mark.parametrize("text", ["a\r\nb", "\x1b[31m", '"}{"', "${jndi:ldap://x}", "\x00", "münchen"])
def test_l01_any_text_stays_within_its_line(logs: pytest.CaptureFixture[bytes], text: str) -> None:
    configure_logs()

    structlog.get_logger().info("request refused", reason=text)

    (line,) = written(logs)
    assert line["reason"] == text
    assert line["event"] == "request refused"


@pytest.mark.parametrize("value", ["\udcff", 2**70, object, b"\xff", {"a": {"\udcff"}}])
def test_l01_what_json_does_not_know_stays_within_its_line(logs: pytest.CaptureFixture[bytes], value: object) -> None:
    configure_logs()

    structlog.get_logger().info("request refused", reason=value)
    logging.getLogger("library").warning("%s", value)

    assert len(written(logs)) == 2


def test_l01_messages_of_libraries_are_lines_of_the_same_shape(logs: pytest.CaptureFixture[bytes]) -> None:
    configure_logs()

    logging.getLogger("aiohttp.server").error("Error handling request %s", "a\nb")
    logging.getLogger("asyncio").info("not told")

    (line,) = written(logs)
    assert (line["logger"], line["level"]) == ("aiohttp.server", "error")
    assert line["message"] == "Error handling request a\nb"


def test_a_log_that_cannot_be_written_fails_nobody(monkeypatch: pytest.MonkeyPatch, logs: object) -> None:
    """Else every refusal would be answered as if the client were to blame, or not at all, once a disk is full."""
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=full))
        configure_logs()

        structlog.get_logger().info("request refused")
        logging.getLogger("library").warning("no room")
