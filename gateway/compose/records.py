"""Composition of what keeps our records: who makes them, who tells of them, who looks after them."""

from dataclasses import dataclass

import aiohttp

from config.model import Cache, Settings
from gateway.compose.billing import trials
from gateway.compose.outbox import announcements_of, logins_to, start_outbox
from gateway.live.registry import Registry
from gateway.live.watch import Watch
from gateway.parts import ComposeFailed, Parts
from gateway.revocation.changes import PersonChanged
from gateway.revocation.revocations import Revocations
from gateway.witness import audit_notes
from provisioning.arrivals import Arrivals
from provisioning.audit_notes import AuditNotes
from provisioning.bootstrap import bootstrap_of
from provisioning.clerk_api import ClerkApi
from provisioning.database.pool import Database
from provisioning.endings import Endings
from provisioning.first_sight import FirstSight
from provisioning.new_tokens import ONE_TIME_SECRETS, FirstToken
from provisioning.outbox.announcements import Announcements
from provisioning.outbox.worker import Outbox
from provisioning.records import User
from provisioning.sealing import Sealer
from provisioning.token_rules import TokenRules
from provisioning.token_upkeep import TokenReaper, TokenUpkeep
from provisioning.token_uses import TokenUses
from provisioning.tokens import Tokens

_PROVISIONING_ENDS_S = 2.0
"""Seconds a provisioning whose records are being left has to come to its end: several statements."""


@dataclass(frozen=True, slots=True)
class RecordParts:
    """What is made of the settings."""

    database: Database
    clerk_api: ClerkApi
    arrivals: Arrivals
    tokens: Tokens
    token_uses: TokenUses
    outbox: Outbox
    notes: AuditNotes


async def record_parts(
    parts: Parts,
    settings: Settings,
    database: Database,
    database_url: str,
    session: aiohttp.ClientSession,
    live: Registry,
    revoking: Revocations,
) -> RecordParts:
    """Make these, or carry them over.

    Raises:
        ComposeFailed: There is no master key.
    """
    clerk, token_rules = settings.clerk, TokenRules.of(settings.tokens)
    sealer, announcements = Sealer(master_key(settings), ONE_TIME_SECRETS), announcements_of(settings)

    async def make_clerk_api() -> ClerkApi:
        secret_key = clerk.secret_key.get_secret_value() if clerk.secret_key is not None else None
        return ClerkApi(session, clerk.api_url, secret_key)

    def tell_promotion(user: User, was_known: bool) -> None:
        revoking.tell(PersonChanged(user.id, user.clerk_id, closes=was_known))

    async def make_arrivals() -> Arrivals:
        sight = _first_sight(settings, database, FirstToken(sealer, token_rules), announcements)
        return Arrivals(sight, clerk_api, bootstrap=bootstrap_of(settings, database, clerk_api, tell_promotion))

    clerk_api = await parts.hold("Clerk's API", (clerk.api_url, clerk.secret_key), make_clerk_api, ClerkApi.close)
    outbox = await start_outbox(parts, settings, database_url, session, clerk_api)
    rules = (settings.provisioning, settings.bootstrap, token_rules, settings.secrets, announcements)
    arrivals = await parts.hold("arrivals", (database, clerk_api, revoking, *rules), make_arrivals, _finish)
    cache = settings.cache
    watch = (database, cache.near_ttl, cache.degraded_ttl)
    await parts.hold("watch of websockets", watch, lambda: _start_watch(live, database, cache), Watch.close)
    upkeep = await parts.hold("upkeep of tokens", (database,), lambda: _start_upkeep(database), TokenUpkeep.close)
    notes = await audit_notes(parts, database, logins_to(announcements), announcements)
    tokens = Tokens(database, sealer, token_rules)
    return RecordParts(database, clerk_api, arrivals, tokens, upkeep.uses, outbox, notes)


def master_key(settings: Settings) -> str:
    """Read the master key.

    Raises:
        ComposeFailed: There is none.
    """
    if settings.secrets.master_key is None:
        raise ComposeFailed("secrets.master_key is missing")
    return settings.secrets.master_key.get_secret_value()


def _first_sight(
    settings: Settings, database: Database, first_token: FirstToken, announcements: Announcements
) -> FirstSight:
    rules = settings.provisioning
    return FirstSight(
        database,
        personal_organizations=rules.personal_organizations,
        first_token=first_token if rules.first_api_token else None,
        announcements=announcements,
        trials=trials(rules),
        link_verified_email=rules.link_verified_email,
    )


async def _start_upkeep(database: Database) -> TokenUpkeep:
    upkeep = TokenUpkeep(TokenUses(database), TokenReaper(database))
    upkeep.start()
    return upkeep


async def _start_watch(live: Registry, database: Database, cache: Cache) -> Watch:
    watch = Watch(live, Endings(database), cache.near_ttl, cache.degraded_ttl)
    watch.start()
    return watch


async def _finish(arrivals: Arrivals) -> None:
    await arrivals.finish(_PROVISIONING_ENDS_S)
