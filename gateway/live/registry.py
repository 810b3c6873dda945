"""The registry of open websockets by principal: a connection lives as long as whoever opened it may call.

It ends with close code 4401 when its user, session, token or membership does (`end`), and when the token it was opened
with expires and nobody renewed it. A Clerk session is no token: its JWT lives a minute and is replaced all the time, so
a websocket that a session opened is bound to the session, not to the JWT that happened to be sent.

Other requests are not registered, because they are many and ends are few: when somebody's rights end, the lanes look
through what is under way (`Lane`), and cut what is not over a moment later. An answer that streams ends with them, also
one that was begun with what the records said before (`missed`).

A handshake under way is here as well: what is revoked between the check of its credential and the upstream's 101 ends
with the 101. The registry is bounded by the connections themselves, each of which holds two file descriptors.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from gateway.actors.actor import Actor
from gateway.actors.system_tokens import subject_of
from gateway.credentials.kinds import CredentialKind
from gateway.upstream.tunnel import UNAUTHORIZED
from gateway.verify.principal import Principal

REVOKED = "revoked"
_REMEMBERED = 1000
"""Ends, for those whose credential is being checked meanwhile: that takes a second or two."""
ENDLESS = frozenset({CredentialKind.SESSION, CredentialKind.SYSTEM_TOKEN})
"""Kinds whose expiry ends nothing that is open: see above."""
GRACE_S = 0.7
"""Seconds that a request under way has when whoever sent it may not call any more: most are over by then."""
_LOOKED_FOR = 1024


def has_expired(principal: Principal) -> bool:
    """Tell whether the token is over, with which something was opened that is to end with it."""
    return principal.kind not in ENDLESS and principal.expires_at <= time.time()


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


class Lane(Protocol):
    """Where requests are under way."""

    def end_exchanges(self, fits: Callable[[Actor], bool], after_s: float) -> None:
        """Cut those of actors that fit which are still under way after some seconds."""


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
    """Every open websocket of this process.

    Attributes:
        ends: How often anything was ended.
        in_touch: What ends elsewhere is heard of at once; else whoever watches looks more often (`watch.py`).
        doubted: Set when something may have been missed: whoever watches looks at once.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Begin empty.

        Args:
            clock: Unix seconds.
        """
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._by: dict[tuple[str, str], set[Live]] = {}
        self._lately: deque[tuple[set[tuple[str, str]], str]] = deque(maxlen=_REMEMBERED)
        self.ends = 0
        self.in_touch = True
        self.doubted = asyncio.Event()
        self._lanes: list[Lane] = []
        self._looked_for: dict[tuple[tuple[str, str], ...], float] = {}  # loop time

    def watch(self, lane: Lane) -> None:
        """Tell a lane from now on whose requests end."""
        self._lanes.append(lane)

    def enter(self, actor: Actor, connection_id: str, since: int | None = None) -> Live:
        """Register a websocket whose handshake goes up now; `Live.leave` when it is over.

        Args:
            actor: Who opens it.
            connection_id: Its name.
            since: `ends` when its credential began to be checked: what was ended since does not open. None: now.
        """
        principal = actor.principal
        expires_at = None if principal.kind in ENDLESS else self._loop_time(principal.expires_at)
        live = Live(self, actor, connection_id, expires_at)
        keys = _keys(live)
        for key in keys:
            self._by.setdefault(key, set()).add(live)
        cause = self.missed(actor, since) if since is not None else None
        if cause is not None:
            live.end(cause)
        return live

    def missed(self, actor: Actor, since: int) -> str | None:
        """Tell why what somebody begins now is over already; None: it is not.

        Args:
            actor: Who begins it.
            since: `ends` when their credential began to be checked.
        """
        missed = self.ends - since
        if not missed:
            return None
        if missed > len(self._lately):
            return REVOKED  # more than is remembered: nobody can tell any more
        facts = set(_facts(actor).items())
        return next((cause for wanted, cause in islice(reversed(self._lately), missed) if wanted <= facts), None)

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
        system: str | None = None,
        cause: str = REVOKED,
    ) -> int:
        """End every websocket and stream that fits all that is named; naming nothing ends nothing.

        Args:
            user: `usr_…`, in all organizations unless one is named.
            session: Clerk's `sess_…`.
            token: `atk_…` of an API token; what was minted from it ends too.
            organization: `org_…` of ours.
            system: Name of a system token.
            cause: Label of the metric, and the close frame's phrase.

        Returns:
            How many websockets.
        """
        named = (
            ("user", user),
            ("session", session),
            ("token", token),
            ("organization", organization),
            ("system", subject_of(system) if system is not None else None),
        )
        wanted = {(name, value) for name, value in named if value is not None}
        return self._end(wanted, cause) if wanted else 0

    def end_session(self, session_id: str) -> int:
        """End what stands on a Clerk session, `sess_…`: its own, and what it has open as somebody else."""
        return self._end({("session", session_id)}, REVOKED) + self._end({("acting_session", session_id)}, REVOKED)

    def end_sessions_of(self, clerk_user_id: str, *, acting: bool = False) -> int:
        """End what stands on any session of a person, `user_…`; what API tokens opened stays.

        Args:
            clerk_user_id: Whose; what they opened as somebody else ends too.
            acting: Only that.
        """
        ended = self._end({("acting", clerk_user_id)}, REVOKED)
        return ended if acting else ended + self._end({("signed_in", clerk_user_id)}, REVOKED)

    def _end(self, wanted: set[tuple[str, str]], cause: str) -> int:
        self.ends += 1
        self._lately.append((wanted, cause))
        ended = set.intersection(*(self._by.get(key, set()) for key in wanted))
        for live in tuple(ended):
            live.end(cause)
        self._end_exchanges(tuple(sorted(wanted)))
        return len(ended)

    def _end_exchanges(self, wanted: tuple[tuple[str, str], ...]) -> None:
        """Have the lanes look through what is under way; not for every request of somebody who is refused again."""
        now = self._loop.time()
        if now - self._looked_for.get(wanted, -GRACE_S) < GRACE_S:
            return
        if len(self._looked_for) >= _LOOKED_FOR:
            self._looked_for.clear()
        self._looked_for[wanted] = now

        def fits(actor: Actor) -> bool:
            facts = _facts(actor)
            return all(facts[name] == value for name, value in wanted)

        for lane in self._lanes:
            lane.end_exchanges(fits, GRACE_S)

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
        own = [live for live in found if parent_of(live.actor) == parent_of(actor)]
        for live in own:
            live.extend(self._loop_time(expires_at))
        return bool(own)

    def count(self, actor: Actor) -> int:
        """Tell how many a user has open, or a machine or system token that is no user's."""
        facts = _facts(actor)
        name = next((name for name in ("user", "token", "system") if facts[name]), None)
        return len(self._by.get((name, facts[name] or ""), ())) if name is not None else 0

    def actors(self) -> list[Actor]:
        """Who has something open, once for each websocket."""
        return [live.actor for (kind, _), found in self._by.items() if kind == "connection" for live in found]

    def __len__(self) -> int:
        return sum(1 for kind, _ in self._by if kind == "connection")

    def _loop_time(self, moment: float) -> float:
        return self._loop.time() + moment - self._clock()


def parent_of(actor: Actor) -> tuple[str | None, ...]:
    """What a connection is bound to, however many tokens it shows: user, organization, session or API token."""
    principal = actor.principal
    return actor.user_id, actor.organization_id, principal.session_id, principal.token_id


def _keys(live: Live) -> list[tuple[str, str]]:
    actor, principal = live.actor, live.actor.principal
    keys = (
        ("connection", live.connection_id),
        ("minted", principal.binding.token if principal.binding is not None else None),
        *_facts(actor).items(),
    )
    return [(name, value) for name, value in keys if value]


def _facts(actor: Actor) -> dict[str, str | None]:
    """What an end can name."""
    principal, impersonator = actor.principal, actor.principal.impersonator
    return {
        "user": actor.user_id,
        "signed_in": principal.subject if principal.session_id is not None else None,
        "acting": impersonator.subject if impersonator is not None else None,
        "acting_session": impersonator.session_id if impersonator is not None else None,
        "session": principal.session_id,
        "token": principal.token_id,
        "organization": actor.organization_id,
        "system": principal.subject if principal.kind is CredentialKind.SYSTEM_TOKEN else None,
    }
