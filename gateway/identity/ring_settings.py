"""The key ring as the settings want it."""

from config.model import Settings
from gateway.identity.assertion import LIFE_S
from provisioning.database.pool import Database
from provisioning.key_ring import KeyRing
from provisioning.ring_records import PURPOSE, RingRecords
from provisioning.sealing import Sealer
from provisioning.signing_key import RotationRules


def rotation_rules(settings: Settings) -> RotationRules:
    """When keys follow each other: a key verifies for as long as the longest-lived of what it signs, and some more.

    That more is `publish_ahead`: so long may a replica go without seeing that another key took over.
    """
    keys, tokens = settings.keys, settings.tokens
    longest = max(tokens.websocket_life, tokens.agent_life, LIFE_S)
    return RotationRules(keys.rotate_every, keys.publish_ahead, longest + keys.publish_ahead)


def ring_records(settings: Settings, database: Database) -> RingRecords:
    """The rows of the ring.

    Raises:
        ValueError: There is no master key.
    """
    if settings.secrets.master_key is None:
        raise ValueError("secrets.master_key is missing")
    return RingRecords(database, Sealer(settings.secrets.master_key.get_secret_value(), PURPOSE))


async def start_ring(settings: Settings, database: Database, public_url: str) -> KeyRing:
    """Load the ring.

    Raises:
        KeysUnopened: Its keys do not open under this master key.
    """
    ring = KeyRing(
        ring_records(settings, database),
        public_url,
        rotation_rules(settings),
        refresh_every_s=settings.keys.refresh_every,
    )
    await ring.start()
    return ring
