"""Composition of what webhooks need: who verifies, who writes, who ends what is open, who forgets old deliveries."""

import time

from config.model import Settings
from config.session_life import session_life_s
from gateway.api.clerk_webhooks import ClerkWebhooks
from gateway.compose.outbox import announcements_of
from gateway.parts import Parts
from gateway.revocation.revocations import Revocations
from gateway.verify.svix import SvixSecrets
from provisioning.clerk_facts import ClerkFacts
from provisioning.database.pool import Database
from provisioning.deliveries import DeliveryUpkeep


async def clerk_webhooks(
    parts: Parts, settings: Settings, database: Database, revocations: Revocations
) -> ClerkWebhooks | None:
    """Make what answers Clerk; None without `clerk.webhook_secrets`."""
    clerk = settings.clerk

    async def start_upkeep() -> DeliveryUpkeep:
        upkeep = DeliveryUpkeep(database)
        upkeep.start()
        return upkeep

    if clerk.webhook_secrets or (settings.stripe is not None and settings.stripe.webhook_secrets):
        await parts.hold("upkeep of deliveries", (database,), start_upkeep, DeliveryUpkeep.close)
    if not clerk.webhook_secrets:
        return None
    return ClerkWebhooks(
        SvixSecrets(secret.get_secret_value() for secret in clerk.webhook_secrets),
        ClerkFacts(
            database,
            link_verified_email=settings.provisioning.link_verified_email,
            announcements=announcements_of(settings),
            session_life_s=session_life_s(settings),
        ),
        revocations,
        clerk.instance_id,
        time.time,
    )
