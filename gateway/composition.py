"""Everything that is made of one set of settings: the rooms, what they are made of, and what tells of them.

A process composes once at its start and once more for every reload (`reload.py`), beside what is in force, so that
nothing is given up before its successor stands. What did not change is carried over with all it remembers.
"""

import asyncio
import hashlib
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from config.checks import default_public_url, urls_of
from config.model import Settings
from config.model import Upstream as UpstreamSettings
from config.publishable_key import parse_publishable_key
from config.values import Address
from gateway.actors.callers import Callers
from gateway.actors.system_tokens import SystemTokens
from gateway.api.pages import Pages
from gateway.api.table import Records, own_endpoints
from gateway.credentials.session_cookie import CookieRules
from gateway.edge.forwarded import ForwardingTrust
from gateway.identity.assertion import Assertions
from gateway.listen.refusals import Refusals
from gateway.live.registry import Registry
from gateway.own_tokens import OwnTokens, own_tokens
from gateway.parts import Lease, Parts
from gateway.pipeline import Pipeline, Rooms
from gateway.policy.cors import Cors
from gateway.policy.origins import compile_origins
from gateway.policy.routes import RouteTable
from gateway.telemetry.collectors import Sources
from gateway.telemetry.metrics import Metrics
from gateway.tls import client_context, server_context
from gateway.upstream.address import parse_addresses
from gateway.upstream.pool import Upstream
from gateway.upstream.tunnel import Tunnels
from gateway.verify.api_tokens import ApiTokens
from gateway.verify.reporter_keys import ReporterKeys
from gateway.verify.session import SessionRules
from gateway.verify.signing_keys import SigningKeys
from gateway.verify.verifier import Verifier
from provisioning.arrivals import Arrivals
from provisioning.clerk_api import ClerkApi
from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.new_tokens import ONE_TIME_SECRETS, FirstToken
from provisioning.organizations import Organizations
from provisioning.sealing import Sealer
from provisioning.token_rules import TokenRules
from provisioning.token_upkeep import TokenReaper, TokenUpkeep
from provisioning.token_uses import TokenUses
from provisioning.tokens import Tokens
from provisioning.users import Users

_PROVISIONING_ENDS_S = 2.0
"""Seconds a provisioning whose records are being left has to come to its end: several statements."""


class ComposeFailed(Exception):
    """Settings that are right, and yet cannot be served under now; the text says why, for operators."""


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
    made_of = {name: await asyncio.to_thread(_ingredients, config) for name, config in settings.upstreams.items()}
    upstreams = {
        name: before.sources.upstreams[name]
        if before is not None and before.made_of.get(name) == made_of[name]
        else await _upstream(name, settings.upstreams[name])
        for name in settings.upstreams
    }
    pages = await asyncio.to_thread(Pages, public_url, settings.clerk.sign_in_url)
    async with Parts.after(before.parts if before is not None else None) as parts:
        database = await _database(parts, settings, database_url)
        own = await own_tokens(parts, settings, public_url, database)
        sources = await _sources(parts, settings, database, home, upstreams, own)
        if before is not None:
            sources.go_on(before.sources)
            if sources.keys is not before.sources.keys and not await sources.keys.first_set():
                raise ComposeFailed("no signing keys can be had from clerk.jwks_url")
        records = _records(home, sources, own, await _reporter_keys(parts, settings, home))
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
    database: Database,
    home: Home,
    upstreams: Mapping[str, Upstream],
    own: OwnTokens,
) -> Sources:
    """Make or carry over whatever remembers, waits, or holds connections."""
    clerk, token_rules = settings.clerk, TokenRules.of(settings.tokens)
    sealer, entries = Sealer(_master_key(settings), ONE_TIME_SECRETS), settings.cache.near_entries

    async def start_keys() -> SigningKeys:
        keys = SigningKeys(
            clerk.jwks_url or "",
            ttl=clerk.jwks.ttl,
            cooldown=clerk.jwks.cooldown,
            stale_ceiling=clerk.jwks.stale_ceiling,
        )
        await keys.start()
        return keys

    async def make_clerk_api() -> ClerkApi:
        secret_key = clerk.secret_key.get_secret_value() if clerk.secret_key is not None else None
        return ClerkApi(home.session, clerk.api_url, secret_key)

    async def make_arrivals() -> Arrivals:
        rules = settings.provisioning
        first_token = FirstToken(sealer, token_rules) if rules.first_api_token else None
        sight = FirstSight(database, personal_organizations=rules.personal_organizations, first_token=first_token)
        return Arrivals(sight, clerk_api)

    async def make_assertions() -> Assertions:
        return Assertions(own.ring, asserted, entries)

    async def make_callers() -> Callers:
        verifier = Verifier(keys, SessionRules.of(clerk), time.time, own.verifier)
        api_tokens = ApiTokens(tokens, token_rules.scopes, settings.cache)
        callers = Callers(verifier, arrivals, settings.cache, api_tokens=api_tokens, ended=home.live.end)
        callers.start()
        return callers

    asserted = frozenset(name for name, upstream in settings.upstreams.items() if upstream.assertion)
    assertions = await parts.hold("assertions", (own.ring, asserted, entries), make_assertions)
    keys = await parts.hold("signing keys", (clerk.jwks_url, clerk.jwks), start_keys, SigningKeys.close)
    clerk_api = await parts.hold("Clerk's API", (clerk.api_url, clerk.secret_key), make_clerk_api, ClerkApi.close)
    made_of = (database, clerk_api, settings.provisioning, token_rules, settings.secrets)
    arrivals = await parts.hold("arrivals", made_of, make_arrivals, _finish)
    upkeep = await parts.hold("upkeep of tokens", (database,), lambda: _start_upkeep(database), TokenUpkeep.close)
    tokens = Tokens(database, sealer, token_rules)
    # All of `clerk`, though not all of it counts: no caller may be known by rules that were changed since. And callers
    # keep what was asserted of them.
    known_by = (keys, arrivals, clerk, token_rules, settings.cache, own.ring, assertions)
    callers = await parts.hold("callers", known_by, make_callers, Callers.close)
    return Sources(
        keys, database, arrivals, clerk_api, callers, upstreams, home.tunnels, tokens, upkeep.uses, own.ring, assertions
    )


def _master_key(settings: Settings) -> str:
    if settings.secrets.master_key is None:
        raise ComposeFailed("secrets.master_key is missing")
    return settings.secrets.master_key.get_secret_value()


async def _start_upkeep(database: Database) -> TokenUpkeep:
    upkeep = TokenUpkeep(TokenUses(database), TokenReaper(database))
    upkeep.start()
    return upkeep


async def _finish(arrivals: Arrivals) -> None:
    await arrivals.finish(_PROVISIONING_ENDS_S)


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
        routes=RouteTable.compile(settings.routes),
        cookie_rules=CookieRules.of(key),
        callers=sources.callers,
        token_uses=sources.token_uses,
        cors=Cors(origins),
        issuers=frozenset((*clerk.issuer, public_url)),
        own_issuer=public_url,
        system_tokens=SystemTokens(settings.system_tokens),
        replays=own.replays,
        own_origins=compile_origins([public_url.rstrip("/"), *clerk.authorized_parties]),
        upstreams=sources.upstreams,
        assertions=sources.assertions,
        tunnels=home.tunnels,
        live=home.live,
        metrics=home.metrics,
        clock=time.time,
        lease=Lease(),
    )


def _records(home: Home, sources: Sources, own: OwnTokens, reporter_keys: ReporterKeys | None) -> Records:
    database = sources.database

    def forget_tokens(user_id: str, ended: str | None) -> None:
        sources.callers.forget_tokens(user_id)
        if ended is not None:  # of this person: a stranger's id ends nothing
            home.live.end(user=user_id, token=ended)

    users, organizations = Users(database), Organizations(database)
    return Records(users, organizations, sources.tokens, forget_tokens, own.ring, own.minter, home.live, reporter_keys)


def _ingredients(config: UpstreamSettings) -> object:
    """What an upstream is made of: its settings, and the authorities in the file they name. Reads it: off the loop."""
    return config, hashlib.sha256(_contents(config.ca_file)).digest() if config.ca_file is not None else None


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # `client_context` says what is wrong with it


async def _upstream(name: str, config: UpstreamSettings) -> Upstream:
    urls = urls_of(config)
    tls = None
    if any(url.startswith("https:") for url in urls):
        tls = await asyncio.to_thread(client_context, config.ca_file, f"upstreams.{name}.ca_file")
    return Upstream(
        name,
        parse_addresses(urls, tls=tls, server_name=config.server_name),
        connect_timeout_s=config.connect_timeout,
        response_timeout_s=config.response_timeout,
        idle_timeout_s=config.idle_timeout,
        max_connections=config.max_connections,
        queue_timeout_s=config.queue_timeout,
    )
