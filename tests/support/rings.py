"""Key rings over a database, with clocks that a test moves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from provisioning.database.pool import Database
from provisioning.key_ring import KeyRing
from provisioning.ring_records import PURPOSE, RingRecords
from provisioning.sealing import Sealer
from provisioning.signing_key import RotationRules
from tests.support.gateway import MASTER_KEY, ORIGIN

HOUR, DAY = 3600.0, 86400.0
RULES = RotationRules(rotate_every=30 * DAY, publish_ahead=HOUR, keep_for=2 * HOUR)


@dataclass
class Clock:
    """Time that a test moves; both of a ring's clocks."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def records_over(database: Database, master_key: str = MASTER_KEY) -> RingRecords:
    return RingRecords(database, Sealer(master_key, PURPOSE))


def ring_over(
    database: Database, clock: Clock, *, master_key: str = MASTER_KEY, rules: RotationRules = RULES
) -> KeyRing:
    """A ring that looks into PostgreSQL only when a test says so."""
    return KeyRing(
        records_over(database, master_key), ORIGIN, rules, refresh_every_s=10 * DAY, clock=clock, monotonic=clock
    )


@asynccontextmanager
async def started(ring: KeyRing) -> AsyncIterator[KeyRing]:
    await ring.start()
    try:
        yield ring
    finally:
        await ring.close()


def claims_for(clock: Clock, **changes: object) -> dict[str, object]:
    """Claims that verify for the audience `app`; a change to None leaves a claim out."""
    now = int(clock())
    claims: dict[str, object] = {"iss": ORIGIN, "aud": "app", "iat": now, "exp": now + 300, "sub": "usr_1", **changes}
    return {name: value for name, value in claims.items() if value is not None}
