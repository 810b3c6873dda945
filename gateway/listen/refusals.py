"""What a client is told when its request is refused or fails: the answer, the log line, the fields for browsers."""

import time
from email.utils import formatdate

import structlog

from gateway.answer import Answer
from gateway.api.pages import Pages
from gateway.edge import slots
from gateway.edge.arrival import Arrived, Incoming, wants_html
from gateway.errors import GatewayError, RequestMalformed
from gateway.policy.cors import Cors
from gateway.problems import answer_for, code_of, row_of
from gateway.way import Way

_log = structlog.get_logger()
MALFORMED_LOGGED_PER_S = 10
"""Lines a second about requests that are no HTTP: a flood of them must not become a flood of logs (L01)."""


class Refusals:
    """Turns whatever was raised into an answer of ours, and says so in the log."""

    def __init__(self, cors: Cors, pages: Pages) -> None:
        self._cors = cors
        self._pages = pages
        self._dated_at = 0
        self._date = b""
        self._malformed = _PerSecond(MALFORMED_LOGGED_PER_S)

    def date(self) -> bytes:
        """The Date field of this second (RFC 9110 §6.6.1)."""
        now = int(time.time())
        if now != self._dated_at:
            self._dated_at, self._date = now, formatdate(now, usegmt=True).encode("ascii")
        return self._date

    def answer(self, error: Exception, incoming: Incoming, arrived: Arrived | None, way: Way | None) -> Answer:
        """Answer for an error, and log it once."""
        self._tell(error, incoming, way)
        cors = self._cors.fields(arrived.fields.lifted[slots.ORIGIN]) if arrived is not None else None
        target = arrived.target.raw if arrived is not None else b"/"
        page = self._pages.renderer(target) if wants_html(incoming.fields) else None
        answer = answer_for(error, incoming.request_id, cors=cors or (), page=page)
        if way is None or way.quota is None:
            return answer
        return Answer(answer.status, (*answer.fields, *way.quota.fields()), answer.body, answer.close)

    def with_cors(self, answer: Answer, arrived: Arrived) -> Answer:
        """Let an allowed origin's script read an answer of ours; what is for everybody says so itself."""
        if any(name == b"Access-Control-Allow-Origin" for name, _ in answer.fields):
            return answer
        cors = self._cors.fields(arrived.fields.lifted[slots.ORIGIN])
        return Answer(answer.status, (*answer.fields, *cors), answer.body, answer.close) if cors else answer

    def _tell(self, error: Exception, incoming: Incoming, way: Way | None) -> None:
        facts = {
            "code": code_of(error),
            "status": row_of(error).status.value,
            "request_id": incoming.request_id,
            "route": way.rule.name if way is not None else None,
        }
        if not isinstance(error, GatewayError):
            _log.error("request failed", **facts, exc_info=error)
        elif row_of(error).status >= 500:
            _log.warning("request failed", reason=error.reason, **facts)
        elif not isinstance(error, RequestMalformed) or self._malformed.admits():
            _log.info("request refused", reason=error.reason, **facts)


class _PerSecond:
    """Admits a number of events a second."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._second = 0
        self._count = 0

    def admits(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return self._count <= self._limit
