"""Logs: one JSON object a line on standard output, constant events with fields, ids only."""

import json
import logging
import sys
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Any, BinaryIO, cast

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer


def _rendered(_: object, __: str, event: MutableMapping[str, Any]) -> bytes:
    return _line(event)


def _line(event: MutableMapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # a lone surrogate, an integer over 64 bits: a log line must never fail whoever writes it
        return json.dumps(event, default=repr).encode("ascii")


class _Output:
    """Standard output for logs. A full disk or a reader that went away must cost nobody an answer."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, line: bytes) -> None:
        """Write what can be written."""
        with suppress(OSError):
            self._stream.write(line)

    def flush(self) -> None:
        """Send it, if somebody takes it."""
        with suppress(OSError):
            self._stream.flush()


def configure_logs(level: int = logging.INFO, **facts: object) -> None:
    """Send our events to standard output as JSON, from `level` up; library messages from warning up, likewise.

    Args:
        level: Of `logging`.
        facts: What every line says besides, such as `worker`.
    """

    def with_facts(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**facts, **event}

    output = _Output(sys.stdout.buffer)
    processors: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        *([with_facts] if facts else []),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Not `dict_tracebacks`: it prints the local variables of every frame, tokens and cookies among them.
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
    ]
    structlog.configure(
        processors=[*processors, _rendered],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(cast(BinaryIO, output)),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[_Foreign(facts, output)], force=True)


class _Foreign(logging.Handler):
    """Lines of libraries, in our shape."""

    def __init__(self, facts: Mapping[str, object], output: _Output) -> None:
        super().__init__()
        self._facts = facts
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a message that cannot be formatted is told as it is."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        event: dict[str, Any] = {
            **self._facts,
            "event": "library message",
            "logger": record.name,
            "message": message,
            "level": record.levelname.lower(),
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
        }
        if record.exc_info and record.exc_info[1] is not None:
            event["exception"] = repr(record.exc_info[1])
        self._output.write(_line(event) + b"\n")
        self._output.flush()
