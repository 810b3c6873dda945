"""What ends in this process when something changed: beliefs about people, and what they have open."""

from gateway.actors.callers import Callers
from gateway.live.registry import Registry
from gateway.revocation.changes import (
    AnythingChanged,
    Change,
    OrganizationChanged,
    PersonChanged,
    SessionOver,
    SignedOut,
    TokensChanged,
)
from gateway.revocation.sessions import LocalSessions


class Endings:
    """Applies changes to whatever believes or holds open; outlives every reload."""

    def __init__(self, live: Registry) -> None:
        self._live = live
        self._callers: list[Callers] = []
        self._sessions: list[LocalSessions] = []
        self._listener: object = None
        self._in_touch = True

    def follow(self, listener: object, *, in_touch: bool) -> None:
        """Hear of touch from this one alone from now on; what another one's place it takes heard is not known."""
        self._listener = listener
        if in_touch:
            self.regain_touch(listener, missed=True)
        else:
            self.lose_touch(listener)

    def watch(self, callers: Callers) -> None:
        """Count what these believe from now on."""
        self._callers.append(callers)
        if not self._in_touch:
            callers.lose_touch()

    def unwatch(self, callers: Callers) -> None:
        """They are no more."""
        self._callers.remove(callers)

    def deny_in(self, sessions: LocalSessions) -> None:
        """Have these know from now on which sessions are over."""
        self._sessions.append(sessions)
        if not self._in_touch:
            sessions.lose_touch()

    def deny_no_more_in(self, sessions: LocalSessions) -> None:
        """They are no more."""
        self._sessions.remove(sessions)

    def apply(self, change: Change) -> None:
        """End what a change ends, at once."""
        for sessions in self._sessions:
            _deny(sessions, change)
        for callers in self._callers:
            _forget(callers, change)
        match change:
            case PersonChanged(closes=True):
                self._live.end(user=change.user_id, organization=change.organization_id)
            case TokensChanged(token_id=str(token)) if change.ends_at is None:
                self._live.end(user=change.user_id, token=token)
            case TokensChanged(token_id=str(token), ends_at=float(ends_at)):
                self._live.limit(user=change.user_id, token=token, until=ends_at)
            case AnythingChanged():
                self._live.doubted.set()
            case _:
                pass  # nothing that is open ends with it, or whoever denies a session ends that

    def lose_touch(self, listener: object) -> None:
        """Changes made elsewhere may be missed from now on: what is believed lives `cache.degraded_ttl`."""
        if listener is self._listener:
            self._in_touch = self._live.in_touch = False
            self._live.doubted.set()
            for callers in self._callers:
                callers.lose_touch()
            for sessions in self._sessions:
                sessions.lose_touch()

    def regain_touch(self, listener: object, *, missed: bool) -> None:
        """They are heard of again; some may have been missed."""
        if listener is self._listener:
            self._in_touch = self._live.in_touch = True
            if missed:
                self._live.doubted.set()
            for sessions in self._sessions:
                sessions.regain_touch(missed=missed)
            for callers in self._callers:
                callers.regain_touch(missed=missed)


def _forget(callers: Callers, change: Change) -> None:
    match change:
        case PersonChanged():
            callers.forget(change.user_id, change.clerk_user_id)
        case TokensChanged():
            callers.forget_tokens(change.user_id)
        case SessionOver() | SignedOut():
            pass  # whoever denies them has them forgotten
        case OrganizationChanged():
            callers.forget_organization(change.organization_id)
        case AnythingChanged():
            callers.forget_all()


def _deny(sessions: LocalSessions, change: Change) -> None:
    match change:
        case SessionOver():
            sessions.session_ended(
                change.session_id, user_id=change.user_id, clerk_user_id=change.clerk_user_id, for_s=change.for_s
            )
        case SignedOut():
            sessions.signed_out(change.clerk_user_id, change.before, user_id=change.user_id, acting=change.acting)
        case AnythingChanged():
            sessions.doubt()
        case _:
            pass  # no session ended
