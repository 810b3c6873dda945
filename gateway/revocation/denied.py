"""Which sessions are over although their tokens still live: asked whenever a proof is had, never on a near hit.

A session is denied by its id (`sid`), a person by a moment: what Clerk issued for them up to then counts no more. Both
also end what stands on the session: an impersonation it began, and tokens that were minted for it. Entries are kept
until the last such token has died. When there are more of them than may be remembered, nobody is let through by what is
left: the records are asked about each credential instead.
"""

import time
from collections.abc import Awaitable, Callable
from math import inf

from gateway.credentials.kinds import CredentialKind
from gateway.errors import CredentialRejected, StoreUnavailable
from gateway.revocation.errors import SessionRevoked
from gateway.verify.principal import Principal

MOST = 200_000
"""Entries of each kind: some 50 MB when both are full."""
_ROOM_S = 10.0
"""How long nobody looks for room again that was not there: a look goes through all entries."""
_SESSION = CredentialKind.SESSION

Ask = Callable[[list[str], list[str]], Awaitable[tuple[list[str], dict[tuple[str, bool], float]]]]
"""Asks the records about sessions and people: gives those of the sessions that are over, and people's moments by person
and whether only what they did as somebody else is over."""


class Denied:
    """Remembers them in this process.

    Attributes:
        whole: Everything that is denied is in here; else the records are asked as well.
        lacks_room: There is more than may be remembered.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        oldest_s: float = inf,
        stale_s: float = 0.0,
        most: int = MOST,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know nothing yet, and that it is nothing.

        Args:
            ask: Asked while this is not whole; raises StoreUnavailable.
            oldest_s: Age at which a session's token is refused, as entries are not kept for older ones.
            stale_s: `cache.stale_if_error`: how long what was whole once serves while the records cannot be asked.
            most: Entries of each kind.
            clock: Unix seconds.
            monotonic: Seconds that are never set back.
        """
        self._ask = ask
        self._oldest_s = oldest_s
        self._stale_s = stale_s
        self._most = most
        self._clock = clock
        self._monotonic = monotonic
        self._sessions: dict[str, float] = {}  # until when, monotonic
        # The moment, Unix seconds, and until when, monotonic.
        self._people: dict[tuple[str, bool], tuple[float, float]] = {}
        self._whole_at = -inf  # monotonic
        self._full_until = -inf  # the same
        self.whole = False
        self.lacks_room = False

    def doubt(self) -> None:
        """Something may have been missed from now on: not everything is in here."""
        if self.whole:
            self.whole, self._whole_at = False, self._monotonic()

    def __len__(self) -> int:
        return len(self._sessions) + len(self._people)

    def end_session(self, session_id: str, for_s: float) -> bool:
        """Deny a session from now on; gives whether that is new.

        Args:
            session_id: `sess_…`.
            for_s: Seconds until its last token has died.
        """
        until, before = self._monotonic() + for_s, self._sessions.get(session_id)
        if before is None and len(self._sessions) >= self._most and not self._make_room():
            self.whole, self.lacks_room = False, True
            return True
        self._sessions[session_id] = max(until, before or 0.0)
        return before is None

    def sign_out(self, clerk_user_id: str, before: float, for_s: float, *, acting: bool = False) -> bool:
        """Deny from now on what a person was given up to a moment; gives whether that is new.

        Args:
            clerk_user_id: `user_…`.
            before: Unix seconds, by Clerk's clock; what says this very second is denied as well.
            for_s: Seconds until the last such token has died.
            acting: Only what they were given as somebody else; who they are themselves, our records judge.
        """
        key = clerk_user_id, acting
        until, known = self._monotonic() + for_s, self._people.get(key)
        if known is None and len(self._people) >= self._most and not self._make_room():
            self.whole, self.lacks_room = False, True
            return True
        moment, lasting = known or (-inf, 0.0)
        self._people[key] = max(before, moment), max(until, lasting)
        return before > moment

    def forget_dead(self) -> None:
        """Let go of what no living token can show any more."""
        now = self._monotonic()
        self._sessions = {key: until for key, until in self._sessions.items() if until > now}
        self._people = {key: one for key, one in self._people.items() if one[1] > now}

    def denies(self, principal: Principal) -> bool:
        """Tell whether what stands behind a credential is over, as far as is known here."""
        if not _stands_on_session(principal):
            return False
        if self._is_too_old(principal) or any(one in self._sessions for one in _sessions_of(principal)):
            return True
        moments = (self._people.get(one) for one in _people_of(principal))
        return any(known is not None and _is_before(principal, known[0]) for known in moments)

    async def check(self, principal: Principal) -> None:
        """Refuse what is over; waits only while this is not whole.

        Raises:
            SessionRevoked: It is.
            CredentialRejected: `session_token_too_old`: nobody could tell any more.
            StoreUnavailable: There is more than is remembered, or has been for `cache.stale_if_error`, and the records
                cannot be asked.
        """
        if self.denies(principal):
            if self._is_too_old(principal):
                raise CredentialRejected("session_token_too_old")
            raise SessionRevoked
        if self.whole or not _stands_on_session(principal):
            return
        try:
            ended, moments = await self._ask(_sessions_of(principal), [key[0] for key in _people_of(principal)])
        except StoreUnavailable:
            # Without the records nobody can end a session through us either: what was missed is from before that.
            if self.lacks_room or self._monotonic() - self._whole_at >= self._stale_s:
                raise
            return
        found = (moments.get(one) for one in _people_of(principal))
        if ended or any(moment is not None and _is_before(principal, moment) for moment in found):
            raise SessionRevoked

    def _is_too_old(self, principal: Principal) -> bool:
        issued_at = principal.issued_at
        return principal.kind is _SESSION and issued_at is not None and self._clock() - issued_at > self._oldest_s

    def _make_room(self) -> bool:
        now = self._monotonic()
        if now < self._full_until:
            return False
        self._full_until = now + _ROOM_S
        self.forget_dead()
        return len(self._sessions) < self._most and len(self._people) < self._most


def _stands_on_session(principal: Principal) -> bool:
    """A session's own token, or one that was minted for it; an API token, and what was minted from that, is none."""
    return principal.kind is _SESSION or (principal.binding is not None and principal.token_id is None)


def _sessions_of(principal: Principal) -> list[str]:
    impersonator = principal.impersonator
    named = (principal.session_id, impersonator.session_id if impersonator is not None else None)
    return [one for one in named if one is not None]


def _people_of(principal: Principal) -> list[tuple[str, bool]]:
    impersonator, own = principal.impersonator, (principal.subject, False)
    return [own] if impersonator is None else [own, (impersonator.subject, False), (impersonator.subject, True)]


def _is_before(principal: Principal, moment: float) -> bool:
    """What does not say when it was issued may be as old as any."""
    return principal.issued_at is None or principal.issued_at <= moment
