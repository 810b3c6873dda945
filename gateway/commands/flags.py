"""What `gateway flags` does for operators: it asks PostgreSQL and the provider itself, running gateway or not."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, cast

import structlog

from config.model import Flags, Settings
from gateway.commands.tokens import CommandFailed, Printed, ask_records, chosen, json_text, user_named
from gateway.compose.flags import provider_of
from gateway.flags.provider import DefinitionsInvalid, Facts
from gateway.flags.telling import FlagTeller, NoProvider, Told
from provisioning.database.pool import Database
from provisioning.memberships import Memberships
from provisioning.subscription_status import plan_in_force, status_at

if TYPE_CHECKING:
    from gateway.shared_state.client import SharedRedis

_NOT_LOADED = "definitions cannot be had: these are the declared defaults"


def evaluate(settings: Settings, user: str, organization: str | None, *, as_json: bool) -> Printed:
    """Evaluate the declared flags for a user's session.

    Args:
        settings: Loaded.
        user: `usr_…` or Clerk's `user_…`.
        organization: `org_…`, ours or Clerk's; None: the only one the user is in.
        as_json: Print one JSON object.

    Raises:
        CommandFailed: The user is not found, or PostgreSQL or the definitions cannot be read.
    """
    flags = settings.flags if settings.flags is not None else Flags()
    if not flags.declare:
        return Printed(err=("no flags are declared",), code=1)
    facts = ask_records(settings, lambda database: _facts(database, user, organization))
    try:
        with _logs_beside():
            told, is_loaded = asyncio.run(_told(settings, flags, facts))
    except DefinitionsInvalid as error:
        raise CommandFailed(str(error)) from None
    return _printed(facts, told, flags, () if is_loaded else (_NOT_LOADED,), as_json=as_json)


@contextmanager
def _logs_beside() -> Iterator[None]:
    """Write logs to standard error: what a program reads is the answer alone."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        yield
    finally:
        structlog.configure(**before)


async def _facts(database: Database, word: str, organization: str | None) -> Facts:
    user = await user_named(database, word)
    standing = chosen(await Memberships(database).of_user(user.id), organization)
    subscription, now = standing.subscription, datetime.now(UTC)
    return Facts(
        user.id,
        user.role.value,
        standing.organization.id,
        standing.organization_role,
        user.email,
        plan_in_force(subscription, now) or "",
        str(status_at(subscription, now)),
    )


async def _told(settings: Settings, flags: Flags, facts: Facts) -> tuple[Told, bool]:
    """Tell the flags, and whether there are definitions; without any source defaults are all there is to have."""
    shared = await _shared_redis(settings) if flags.provider == "posthog" else None
    provider = await asyncio.to_thread(provider_of, settings, flags, shared)
    try:
        await provider.start()
        is_loaded = isinstance(provider, NoProvider) or provider.loaded_at is not None
        return FlagTeller(flags.declare, provider, 1).tell(facts), is_loaded
    finally:
        await provider.close()
        if shared is not None:
            await shared.close()


async def _shared_redis(settings: Settings) -> "SharedRedis | None":
    """Where a copy of the definitions may be, if PostHog cannot be asked."""
    config = settings.redis
    if config.url is None:
        return None
    authorities = await asyncio.to_thread(config.ca_file.read_text, "ascii") if config.ca_file is not None else None
    module = await asyncio.to_thread(import_module, "gateway.shared_state.client")
    return cast("SharedRedis", module.SharedRedis(config.url.get_secret_value(), authorities))


def _printed(facts: Facts, told: Told, flags: Flags, warnings: tuple[str, ...], *, as_json: bool) -> Printed:
    if as_json:
        shown = {
            "user": facts.user_id,
            "organization": facts.organization_id,
            "header": told.header.decode("ascii"),
            "upstream": dict(told.upstream),
            "client": dict(told.client),
        }
        return Printed((json_text(shown),), warnings)
    values = {**told.upstream, **told.client}
    rows = [
        (name, json.dumps(values[name], ensure_ascii=False), " ".join(flag.expose))
        if name in values
        else (name, "-", "-")
        for name, flag in flags.declare.items()
    ]
    return Printed(err=warnings, rows=(("FLAG", "VALUE", "TOLD"), *rows))
