"""Everything that is made of one set of settings: the rooms, what they are made of, and what tells of them.

A process composes once at its start and once more for every reload (`reload.py`), beside what is in force, so that
nothing is given up before its successor stands. What did not change is carried over with all it remembers.
"""

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from config.checks import default_public_url
from config.model import Settings
from config.publishable_key import parse_publishable_key
from config.values import Address
from gateway.actors.callers import Callers
from gateway.actors.system_tokens import SystemTokens
from gateway.api.clerk_webhooks import ClerkWebhooks
from gateway.api.pages import Pages
from gateway.api.queries import AUDIT_CURSORS, Cursors
from gateway.api.sign_outs import SignOutEndpoints
from gateway.api.table import Records, own_endpoints
from gateway.compose.billing import stripe_webhooks
from gateway.compose.breakers import breakers_of
from gateway.compose.flags import flag_teller
from gateway.compose.limits import limiter_of
from gateway.compose.machine_tokens import machine_tokens, marks_of
from gateway.compose.own_tokens import OwnTokens, own_tokens
from gateway.compose.records import RecordParts, master_key, record_parts
from gateway.compose.revocation import revocations
from gateway.compose.sessions import SessionParts, session_parts, sign_outs
from gateway.compose.shared_state import shared_redis, shared_tier
from gateway.compose.upstreams import ingredients, new_upstream, polled
from gateway.compose.webhooks import clerk_webhooks
from gateway.credentials.session_cookie import CookieRules
from gateway.edge.forwarded import ForwardingTrust
from gateway.flags.telling import FlagTeller
from gateway.identity.assertion import Assertions
from gateway.limits.limiter import Limiter
from gateway.listen.refusals import Refusals
from gateway.live.registry import Registry
from gateway.parts import ComposeFailed, Lease, Parts
from gateway.pipeline import Pipeline
from gateway.policy.cors import Cors
from gateway.policy.origins import compile_origins
from gateway.policy.routes import RouteTable
from gateway.revocation.endings import Endings
from gateway.revocation.revocations import Revocations
from gateway.rooms import Rooms
from gateway.telemetry.collectors import Sources
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.usage import tracked, usage_of
from gateway.tls import server_context
from gateway.upstream.pool import Upstream
from gateway.upstream.tunnel import Tunnels
from gateway.verify.api_tokens import ApiTokens
from gateway.verify.reporter_keys import ReporterKeys
from gateway.verify.session import SessionRules
from gateway.verify.signing_keys import SigningKeys
from gateway.verify.verifier import Verifier
from gateway.witness import Witness
from provisioning.administration import Administration
from provisioning.audit_trail import AuditTrail
from provisioning.database.pool import Database
from provisioning.memberships import Memberships
from provisioning.organizations import Organizations
from provisioning.sealing import Sealer
from provisioning.token_rules import TokenRules
from provisioning.users import Users


@dataclass(frozen=True, slots=True)
class Home:
    """What outlives every reload.

    Attributes:
        listen: Where clients connect, with the real port.
        session: For questions to Clerk's Backend API.
    """

    listen: Address
    session: aiohttp.ClientSession
    tunnels: Tunnels
    live: Registry
    endings: Endings
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Composition:
    """What serves under one set of settings.

    Attributes:
        settings: In force.
        tls: Of the listener; None: plain HTTP.
        made_of: What each upstream is made of, beside its name.
    """

    settings: Settings
    pipeline: Pipeline
    refusals: Refusals
    tls: ssl.SSLContext | None
    sources: Sources
    parts: Parts
    made_of: Mapping[str, object]


async def compose(settings: Settings, database_url: str, home: Home, before: Composition | None = None) -> Composition:
    """Build everything, carrying over from `before` what its settings leave as it is.

    Args:
        settings: Complete, without problems.
        database_url: DSN of a PostgreSQL whose schema is up to date.
        home: Of this process.
        before: What is in force; it stays as it is.

    Raises:
        OSError: A certificate or its key cannot be used.
        ComposeFailed: Other signing keys than those of `before` cannot be had: everybody would be refused. Or there is
            no master key.
    """
    tls = None
    if settings.tls is not None:
        tls = await asyncio.to_thread(server_context, settings.tls.certificate, settings.tls.key)
    public_url = settings.public_url or default_public_url(settings, home.listen)
    made_of = {name: await asyncio.to_thread(ingredients, config) for name, config in settings.upstreams.items()}
    upstreams = {
        name: before.sources.upstreams[name]
        if before is not None and before.made_of.get(name) == made_of[name]
        else await new_upstream(name, settings.upstreams[name])
        for name in settings.upstreams
    }
    pages = await asyncio.to_thread(Pages, public_url, settings.clerk.sign_in_url)
    async with Parts.after(before.parts if before is not None else None) as parts:
        database = await _database(parts, settings, database_url)
        shared = await shared_redis(parts, settings)
        revoking = await revocations(parts, settings, shared, home.endings)
        own = await own_tokens(parts, settings, public_url, database, shared)
        kept = await record_parts(parts, settings, database, database_url, home.session, home.live, revoking)
        flags = await flag_teller(parts, settings, shared)
        ended = await session_parts(parts, settings, database, home.live, home.endings)
        limiter = await limiter_of(parts, settings, shared)
        sources = await _sources(parts, settings, kept, home, upstreams, own, revoking, flags, ended, limiter)
        sources.breakers.update(breakers_of(database, sources.keys, kept.clerk_api, shared))
        ended.local.adopt(sources.callers)
        if before is not None:
            sources.go_on(before.sources)
            if sources.keys is not before.sources.keys and not await sources.keys.first_set():
                raise ComposeFailed("no signing keys can be had from clerk.jwks_url")
        clerk = await clerk_webhooks(parts, settings, database, revoking)
        reporters = await _reporter_keys(parts, settings, home)
        records = _records(settings, home, sources, own, ended, reporters, clerk)
        rooms = _rooms(settings, public_url, home, records, sources, own)
        return Composition(settings, Pipeline(rooms), Refusals(rooms.cors, pages), tls, sources, parts, made_of)


async def _database(parts: Parts, settings: Settings, database_url: str) -> Database:
    """Open the pool, or carry it over."""
    config = settings.database

    async def open_database() -> Database:
        database = Database(database_url, pool_size=config.pool_size, acquire_timeout=config.acquire_timeout)
        await database.open()
        return database

    return await parts.hold(
        "database", (database_url, config.pool_size, config.acquire_timeout), open_database, Database.close
    )


async def _sources(
    parts: Parts,
    settings: Settings,
    records: RecordParts,
    home: Home,
    upstreams: Mapping[str, Upstream],
    own: OwnTokens,
    revoking: Revocations,
    flags: FlagTeller,
    ended: SessionParts,
    limiter: Limiter | None,
) -> Sources:
    """Make or carry over whatever remembers, waits, or holds connections."""
    clerk, entries, token_rules = settings.clerk, settings.cache.near_entries, TokenRules.of(settings.tokens)

    async def start_keys() -> SigningKeys:
        keys = SigningKeys(
            clerk.jwks_url or "",
            ttl=clerk.jwks.ttl,
            cooldown=clerk.jwks.cooldown,
            stale_ceiling=clerk.jwks.stale_ceiling,
        )
        await keys.start()
        return keys

    async def make_assertions() -> Assertions:
        return Assertions(own.ring, asserted, entries)

    async def make_callers() -> Callers:
        machines = machine_tokens(settings, home.session, records.clerk_api)
        verifier = Verifier(keys, SessionRules.of(clerk), time.time, own.verifier, *machines)
        api_tokens = ApiTokens(records.tokens, token_rules.scopes, settings.cache, shared=tier)
        callers = Callers(
            verifier,
            records.arrivals,
            settings.cache,
            api_tokens=api_tokens,
            ended=home.live.end,
            flags=flags,
            denied=ended.denied,
            shared=tier,
        )
        callers.start()
        home.endings.watch(callers)
        return callers

    async def close_callers(callers: Callers) -> None:
        home.endings.unwatch(callers)
        await callers.close()

    asserted = frozenset(name for name, upstream in settings.upstreams.items() if upstream.assertion)
    assertions = await parts.hold("assertions", (own.ring, asserted, entries), make_assertions)
    tier = await shared_tier(parts, settings, revoking)
    keys = await parts.hold("signing keys", (clerk.jwks_url, clerk.jwks), start_keys, SigningKeys.close)
    usage = await usage_of(parts, settings.posthog, home.session)
    # All of `clerk`, though not all of it counts: no caller may be known by rules that were changed since. And callers
    # keep what was asserted of them.
    made_of = (keys, records.arrivals, clerk, token_rules, settings.cache)
    known_by = (*made_of, own.ring, assertions, flags, ended, tier)
    callers = await parts.hold("callers", known_by, make_callers, close_callers)
    return Sources(
        keys=keys,
        database=records.database,
        arrivals=records.arrivals,
        clerk_api=records.clerk_api,
        callers=callers,
        upstreams=upstreams,
        tunnels=home.tunnels,
        tokens=records.tokens,
        token_uses=records.token_uses,
        ring=own.ring,
        assertions=assertions,
        outbox=records.outbox,
        notes=records.notes,
        usage=usage,
        flags=flags,
        limiter=limiter,
        revocations=revoking,
        shared=tier,
    )


async def _reporter_keys(parts: Parts, settings: Settings, home: Home) -> ReporterKeys | None:
    url = settings.tokens.leak_keys_url
    if url is None:
        return None

    async def make() -> ReporterKeys:
        return ReporterKeys(home.session, url)

    return await parts.hold("reporter keys", (url,), make, ReporterKeys.close)


def _rooms(
    settings: Settings, public_url: str, home: Home, records: Records, sources: Sources, own: OwnTokens
) -> Rooms:
    clerk = settings.clerk
    key = parse_publishable_key(clerk.publishable_key) if clerk.publishable_key is not None else None
    origins = settings.cors.origins if settings.cors.origins is not None else clerk.authorized_parties
    return Rooms(
        hosts=frozenset(settings.hosts),
        trust=ForwardingTrust(settings.trusted_proxies),
        endpoints=own_endpoints(settings, records),
        routes=RouteTable.compile(tracked(settings)),
        cookie_rules=CookieRules.of(key),
        callers=sources.callers,
        witness=Witness(sources.token_uses, sources.notes),
        cors=Cors(origins),
        marks=marks_of(settings, public_url),
        own_issuer=public_url,
        system_tokens=SystemTokens(settings.system_tokens),
        replays=own.replays,
        own_origins=compile_origins([public_url.rstrip("/"), *clerk.authorized_parties]),
        polled=polled(settings),
        upstreams=sources.upstreams,
        assertions=sources.assertions,
        tunnels=home.tunnels,
        live=home.live,
        metrics=home.metrics,
        usage=sources.usage,
        limiter=sources.limiter,
        websockets_each=settings.websocket.max_per_principal,
        clock=time.time,
        lease=Lease(),
    )


def _records(
    settings: Settings,
    home: Home,
    sources: Sources,
    own: OwnTokens,
    ended: SessionParts,
    reporter_keys: ReporterKeys | None,
    clerk: ClerkWebhooks | None,
) -> Records:
    database, revoking = sources.database, sources.revocations
    return Records(
        Users(database),
        Organizations(database),
        sources.tokens,
        revoking,
        own.ring,
        own.minter,
        home.live,
        AuditTrail(database),
        Cursors(Sealer(master_key(settings), AUDIT_CURSORS)),
        Memberships(database),
        Administration(database),
        sources.arrivals,
        SignOutEndpoints(sign_outs(settings, database, sources.clerk_api), revoking),
        reporter_keys,
        stripe_webhooks(settings, database, home.session, revoking),
        clerk,
    )
