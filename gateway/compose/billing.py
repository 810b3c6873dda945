"""Composition of what subscriptions need: trials, and what Stripe's webhooks go through."""

import time

import aiohttp

from config.model import Provisioning, Settings
from gateway.api.stripe_webhooks import StripeWebhooks
from gateway.revocation.revocations import Revocations
from provisioning.database.pool import Database
from provisioning.stripe_api import StripeApi
from provisioning.stripe_events import Plans
from provisioning.stripe_subscriptions import StripeSubscriptions
from provisioning.subscriptions import Trials

_LIVE_KEYS = ("sk_live_", "rk_live_")


def trials(settings: Provisioning) -> Trials | None:
    """Make what starts trials; None: they are off."""
    return Trials(settings.trial_days, settings.trial_plan) if settings.trial_days else None


def stripe_webhooks(
    settings: Settings, database: Database, session: aiohttp.ClientSession, revocations: Revocations
) -> StripeWebhooks | None:
    """Make the endpoint; None: Stripe has no secret to sign with.

    Args:
        settings: In force.
        database: Where subscriptions are.
        session: For questions to Stripe's API.
        revocations: Told of every organization whose subscription changed.
    """
    config = settings.stripe
    if config is None or not config.webhook_secrets:
        return None
    secret_key = config.secret_key.get_secret_value()
    return StripeWebhooks(
        StripeSubscriptions(database, live=secret_key.startswith(_LIVE_KEYS)),
        StripeApi(session, config.api_url, secret_key),
        Plans({config.price_id: settings.provisioning.trial_plan}),
        tuple(secret.get_secret_value().encode() for secret in config.webhook_secrets),
        revocations,
        time.time,
    )
