"""Polling sessions of this process, by `sid`: what was admitted on one request counts on the next.

A `sid` names a session of the upstream's, so whoever knows it is whoever opened it, as on any Engine.IO server. Its
requests must all come to one process; a gateway of several takes no polling.
"""

import asyncio
from dataclasses import dataclass

from gateway.errors import EngineSessionUnknown
from gateway.socketio.session import Session
from gateway.socketio.tunnel import CONNECT_TIMEOUT, POLICY_VIOLATION
from gateway.upstream.tunnel import GOING_AWAY, UNAUTHORIZED

MAX_SESSIONS = 50_000
_SWEEP_S = 1.0
_LONGEST_SILENCE_S = 600.0


@dataclass(slots=True)
class _Polled:
    session: Session
    silence_s: float
    heard_at: float
    ends_at: float | None


class Sessions:
    """All of them, and one timer for their deadlines."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._polled: dict[str, _Polled] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._polled)

    @property
    def full(self) -> bool:
        """No other may be opened now."""
        return len(self._polled) >= MAX_SESSIONS

    def enter(self, sid: str, session: Session, silence_s: float, max_age_s: float | None = None) -> None:
        """Remember one that the upstream opened.

        Args:
            sid: Its id; one that is known already ends that other session.
            session: What its client may send.
            silence_s: The longest time without a request, as the upstream has it.
            max_age_s: Its longest life; None: any. A websocket that takes over has one of its own.
        """
        before = self._polled.pop(sid, None)
        if before is not None:
            before.session.end(POLICY_VIOLATION, "session_doubled")
        silence_s = min(max(silence_s, 1.0), _LONGEST_SILENCE_S)
        now = self.loop.time()
        self._polled[sid] = _Polled(session, silence_s, now, now + max_age_s if max_age_s is not None else None)
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)

    def find(self, sid: str, upstream: str, path: str) -> Session:
        """Find the session of a request.

        Args:
            sid: Its id.
            upstream: Where its route leads.
            path: Of the target.

        Raises:
            EngineSessionUnknown: There is none, or it was another route's, or its websocket took over.
        """
        polled = self._polled.get(sid)
        if polled is None:
            raise EngineSessionUnknown
        session = polled.session
        if session.ended is not None or not session.probing or (session.upstream, session.path) != (upstream, path):
            raise EngineSessionUnknown
        polled.heard_at = self.loop.time()
        return session

    def _sweep(self) -> None:
        now = self.loop.time()
        for sid, polled in tuple(self._polled.items()):
            session = polled.session
            expires_at = session.expires_at
            if expires_at is not None and now >= expires_at:
                session.end(UNAUTHORIZED, "token_expired")
            elif polled.ends_at is not None and now >= polled.ends_at:
                session.end(GOING_AWAY, "max_age")
            elif session.silent:
                session.end(POLICY_VIOLATION, CONNECT_TIMEOUT)
            elif session.closes is None and not session.requests and now - polled.heard_at > polled.silence_s:
                session.leave("client")
            if session.ended is not None or not session.probing:
                del self._polled[sid]
        self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep) if self._polled else None
