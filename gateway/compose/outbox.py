"""Composition of the outbox: who is told of what, and who delivers it."""

from collections.abc import Sequence
from itertools import chain

import aiohttp

from config.model import Settings
from config.session_life import session_life_s
from gateway.parts import Parts
from provisioning.clerk_api import ClerkApi
from provisioning.clerk_sessions import ClerkSessions
from provisioning.database.pool import Connection, Database
from provisioning.logins import Announce, Login
from provisioning.outbox.announcements import Announcements
from provisioning.outbox.effects import Topic
from provisioning.outbox.posthog import Posthog
from provisioning.outbox.profile_sync import ProfileSync
from provisioning.outbox.queue import Queue, enqueue
from provisioning.outbox.receiver import Receiver
from provisioning.outbox.slack import Slack
from provisioning.outbox.stripe import Stripe
from provisioning.outbox.stripe_ids import SubscriptionRows
from provisioning.outbox.worker import Outbox, Rules

POOL_SIZE = 3
STATEMENT_TIMEOUT_S = 10.0
OUTBOX_CONNECTIONS = POOL_SIZE + 1
"""Most that one process has open for its outbox, the one that listens included."""
ENDS_S = 3.0
"""Seconds a delivery under way has when the process, or its settings, end: somebody else will try again."""


def announcements_of(settings: Settings) -> Announcements:
    """Settle whom the outbox is to tell: those who are configured."""
    configured: dict[Topic, bool] = {
        "slack": settings.slack is not None,
        "posthog": settings.posthog is not None,
        "stripe": settings.stripe is not None,
        "profile": settings.clerk.secret_key is not None,
        "sessions": settings.clerk.secret_key is not None,
    }
    return Announcements(frozenset(topic for topic, is_there in configured.items() if is_there))


def logins_to(announcements: Announcements) -> Announce:
    """Make what tells of logins, in the transaction that writes them."""

    async def announce(connection: Connection, logins: Sequence[Login]) -> None:
        told = [announcements.login(one.user, one.organization_id, one.session_id, one.moment) for one in logins]
        await enqueue(connection, *chain.from_iterable(told))

    return announce


def receivers_of(
    settings: Settings, database: Database, session: aiohttp.ClientSession, clerk_api: ClerkApi
) -> list[Receiver]:
    """Make a receiver of each topic that is configured."""
    found: list[Receiver] = []
    if (slack := settings.slack) is not None:
        found.append(Slack(session, slack.webhook_url.get_secret_value()))
    if (posthog := settings.posthog) is not None:
        found.append(Posthog(session, posthog.host, posthog.project_key.get_secret_value()))
    if (stripe := settings.stripe) is not None:
        secret, ids = stripe.secret_key.get_secret_value(), SubscriptionRows(database)
        found.append(Stripe(session, secret, stripe.price_id, ids, api_url=stripe.api_url))
    if settings.clerk.secret_key is not None:
        found.append(ProfileSync(database, clerk_api, announcements_of(settings)))
        found.append(ClerkSessions(database, clerk_api, session_life_s(settings)))
    return found


def new_outbox(
    settings: Settings, database: Database, database_url: str, session: aiohttp.ClientSession, clerk_api: ClerkApi
) -> Outbox:
    """Make an outbox that delivers, to be started.

    Args:
        settings: Complete.
        database: Where the table is.
        database_url: Its DSN; `database.direct_url` goes before it, since a pooler passes no notifications on.
        session: Belongs to the caller; takes no proxies from the environment.
        clerk_api: Of these settings.
    """
    direct = settings.database.direct_url
    url = direct.get_secret_value() if direct is not None else database_url
    return Outbox(Queue(database), receivers_of(settings, database, session, clerk_api), url, _rules(settings))


async def start_outbox(
    parts: Parts,
    settings: Settings,
    database_url: str,
    session: aiohttp.ClientSession,
    clerk_api: ClerkApi,
) -> Outbox:
    """Start the outbox of a process that serves, or carry it over; with `outbox.deliver: false` it only counts.

    It has connections of its own: a long table must neither keep requests waiting for one, nor look to them as if
    PostgreSQL were away.
    """

    async def make() -> Outbox:
        if settings.outbox.deliver:
            outbox = new_outbox(settings, database, database_url, session, clerk_api)
        else:
            outbox = Outbox(Queue(database), (), None, _rules(settings))
        outbox.start()
        return outbox

    async def open_database() -> Database:
        return await opened(database_url, settings.database.acquire_timeout)

    pool = (database_url, settings.database.acquire_timeout)
    database = await parts.hold("outbox database", pool, open_database, Database.close)
    told = (settings.slack, settings.posthog, settings.stripe, settings.clerk.secret_key, settings.database.direct_url)
    made_of = (database, clerk_api, settings.outbox, session_life_s(settings), *told)
    return await parts.hold("outbox", made_of, make, _end)


async def opened(database_url: str, acquire_timeout: float) -> Database:
    """Open the connections of an outbox."""
    database = Database(
        database_url, pool_size=POOL_SIZE, acquire_timeout=acquire_timeout, statement_timeout=STATEMENT_TIMEOUT_S
    )
    await database.open()
    return database


async def _end(outbox: Outbox) -> None:
    await outbox.close(ENDS_S)


def _rules(settings: Settings) -> Rules:
    return Rules(settings.outbox.give_up_after, settings.outbox.keep_delivered)
