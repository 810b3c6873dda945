"""The registry of open websockets by principal: a connection lives as long as whoever opened it may call.

It ends with close code 4401 when its user, session, token or membership does (`end`), and when the token it was opened
with expires and nobody renewed it. A Clerk session is no token: its JWT lives a minute and is replaced all the time, so
a websocket that a session opened is bound to the session, not to the JWT that happened to be sent.

A handshake under way is here as well: what is revoked between the check of its credential and the upstream's 101 ends
with the 101. The registry is bounded by the connections themselves, each of which holds two file descriptors.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from gateway.actors.actor import Actor
from gateway.credentials.kinds import CredentialKind
from gateway.upstream.tunnel import UNAUTHORIZED

REVOKED = "revoked"
_ENDLESS = frozenset({CredentialKind.SESSION, CredentialKind.SYSTEM_TOKEN})


class Connection(Protocol):
    """What can be ended.

    Attributes:
        expires_at: Loop time at which it closes itself with 4401; None: never.
        gone: To be called when it is.
    """

    expires_at: float | None
    gone: Callable[[], None] | None

    def close(self, code: int, cause: str) -> None:
        """End with a close frame."""


class Live:
    """One websocket, from its good credential to its end.

    Attributes:
        actor: Who opened it.
        connection_id: `X-Actor-Connection-Id`.
        expires_at: Loop time; None: never.
    """

    __slots__ = ("_connection", "_ended", "_registry", "actor", "connection_id", "expires_at")

    def __init__(self, registry: "Registry", actor: Actor, connection_id: str, expires_at: float | None) -> None:
        self._registry = registry
        self._connection: Connection | None = None
        self._ended = ""
        self.actor = actor
        self.connection_id = connection_id
        self.expires_at = expires_at

    @property
    def under_way(self) -> bool:
        """The upstream has not switched."""
        return self._connection is None

    def attach(self, connection: Connection) -> None:
        """The upstream switched: from now on there is something to close; at once, if it should have ended before."""
        self._connection = connection
        connection.expires_at, connection.gone = self.expires_at, self.leave
        if self._ended:
            connection.close(UNAUTHORIZED, self._ended)

    def end(self, cause: str) -> None:
        """Close it."""
        self._ended = cause
        if self._connection is not None:
            self._connection.close(UNAUTHORIZED, cause)

    def extend(self, expires_at: float) -> None:
        """Let it live until then (loop time), if it does not already live longer."""
        if self.expires_at is not None and expires_at > self.expires_at:
            self.expires_at = expires_at
            if self._connection is not None:
                self._connection.expires_at = expires_at

    def shorten(self, expires_at: float) -> None:
        """Let it live no longer than until then (loop time)."""
        if self.expires_at is None or expires_at < self.expires_at:
            self.expires_at = expires_at
            if self._connection is not None:
                self._connection.expires_at = expires_at

    def leave(self) -> None:
        """It is gone."""
        self._registry.forget(self)


class Registry:
    """Every open websocket of this process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Begin empty.

        Args:
            clock: Unix seconds.
        """
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._by: dict[tuple[str, str], set[Live]] = {}

    def enter(self, actor: Actor, connection_id: str) -> Live:
        """Register a websocket whose handshake goes up now; `Live.leave` when it is over.

        Args:
            actor: Who opens it.
            connection_id: Its name.
        """
        principal = actor.principal
        expires_at = None if principal.kind in _ENDLESS else self._loop_time(principal.expires_at)
        live = Live(self, actor, connection_id, expires_at)
        for key in _keys(live):
            self._by.setdefault(key, set()).add(live)
        return live

    def forget(self, live: Live) -> None:
        """It is gone; once more does no harm."""
        for key in _keys(live):
            found = self._by.get(key)
            if found is not None:
                found.discard(live)
                if not found:
                    del self._by[key]

    def end(
        self,
        *,
        user: str | None = None,
        session: str | None = None,
        token: str | None = None,
        organization: str | None = None,
        cause: str = REVOKED,
    ) -> int:
        """End every websocket that fits all that is named; naming nothing ends nothing.

        Args:
            user: `usr_…`, in all organizations unless one is named.
            session: Clerk's `sess_…`.
            token: `atk_…` of an API token; what was minted from it ends too.
            organization: `org_…` of ours.
            cause: Label of the metric, and the close frame's phrase.

        Returns:
            How many.
        """
        named = (("user", user), ("session", session), ("token", token), ("organization", organization))
        wanted = [(name, value) for name, value in named if value is not None]
        if not wanted:
            return 0
        ended = set.intersection(*(self._by.get(key, set()) for key in wanted))
        for live in tuple(ended):
            live.end(cause)
        return len(ended)

    def limit(self, *, user: str, token: str, until: float) -> None:
        """Let what a person opened with an API token, or with what it had minted, live no longer than until then.

        Args:
            user: `usr_…`.
            token: `atk_…`.
            until: Unix seconds.
        """
        for live in self._by.get(("user", user), set()) & self._by.get(("token", token), set()):
            live.shorten(self._loop_time(until))

    def renew(self, connection_id: str, actor: Actor, expires_at: float) -> bool:
        """Extend a websocket of whoever asks: the same user and organization, by the same session or API token.

        Args:
            connection_id: `X-Actor-Connection-Id`, or the id (`jti`) of the token it was opened with: a browser's
                script reads no field of a 101. That extends every websocket opened with the token.
            actor: Who asks.
            expires_at: Unix seconds; a websocket that lives longer is left as it is.

        Returns:
            False when there is none, or only somebody else's.
        """
        found = self._by.get(("connection", connection_id), set()) | self._by.get(("minted", connection_id), set())
        own = [live for live in found if _parent(live.actor) == _parent(actor)]
        for live in own:
            live.extend(self._loop_time(expires_at))
        return bool(own)

    def __len__(self) -> int:
        return sum(1 for kind, _ in self._by if kind == "connection")

    def _loop_time(self, moment: float) -> float:
        return self._loop.time() + moment - self._clock()


def _parent(actor: Actor) -> tuple[str | None, ...]:
    principal = actor.principal
    return actor.user_id, actor.organization_id, principal.session_id, principal.token_id


def _keys(live: Live) -> list[tuple[str, str]]:
    actor, principal = live.actor, live.actor.principal
    keys = (
        ("connection", live.connection_id),
        ("minted", principal.binding.token if principal.binding is not None else None),
        ("user", actor.user_id),
        ("session", principal.session_id),
        ("token", principal.token_id),
        ("organization", actor.organization_id),
    )
    return [(name, value) for name, value in keys if value]
