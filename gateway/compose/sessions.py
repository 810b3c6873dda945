"""Composition of what knows which sessions are over, and for how long that must be known."""

from dataclasses import dataclass

from config.model import Settings
from config.session_life import session_life_s
from gateway.errors import StoreUnavailable
from gateway.live.registry import Registry
from gateway.parts import Parts
from gateway.revocation.denied import Denied
from gateway.revocation.endings import Endings
from gateway.revocation.sessions import LocalSessions, SessionWatch
from provisioning.clerk_api import ClerkApi
from provisioning.clerk_sessions import ClerkSessions
from provisioning.database.pool import Database
from provisioning.ended_sessions import EndedSessions
from provisioning.errors import DatabaseUnavailable
from provisioning.sign_outs import SignOuts


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What is made of the settings.

    Attributes:
        denied: Asked on a caller's way.
        local: Ends sessions in this process.
    """

    denied: Denied
    local: LocalSessions
    watch: SessionWatch


async def session_parts(
    parts: Parts, settings: Settings, database: Database, live: Registry, endings: Endings
) -> SessionParts:
    """Make these, or carry them over; what is over is known when this returns, or else asked about each time."""
    life_s, near_ttl = session_life_s(settings), settings.cache.near_ttl
    degraded_ttl, stale_s = settings.cache.degraded_ttl, settings.cache.stale_if_error
    oldest_s = settings.clerk.longest_session_token + settings.clerk.leeway

    async def start() -> SessionParts:
        rows = EndedSessions(database)

        async def ask(sessions: list[str], people: list[str]) -> tuple[list[str], dict[tuple[str, bool], float]]:
            try:
                return await rows.ask(sessions, people)
            except DatabaseUnavailable:
                raise StoreUnavailable("database_unavailable") from None

        denied = Denied(ask, oldest_s=oldest_s, stale_s=stale_s)
        local = LocalSessions(denied, live, life_s)
        made = SessionParts(denied, local, SessionWatch(denied, local, rows, near_ttl, degraded_ttl))
        endings.deny_in(local)  # before the rows are read: what ends meanwhile is heard of
        await made.watch.start()
        return made

    async def close(made: SessionParts) -> None:
        endings.deny_no_more_in(made.local)
        await made.watch.close()

    return await parts.hold(
        "ended sessions", (database, life_s, oldest_s, near_ttl, degraded_ttl, stale_s), start, close
    )


def sign_outs(settings: Settings, database: Database, clerk_api: ClerkApi | None) -> SignOuts:
    """Make what signs people out; without `clerk_api` the outbox alone tells Clerk."""
    life_s, managed = session_life_s(settings), settings.clerk.secret_key is not None
    clerk = ClerkSessions(database, clerk_api, life_s) if managed and clerk_api is not None else None
    return SignOuts(database, clerk, life_s, settings.clerk.leeway, managed=managed)
