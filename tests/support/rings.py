"""A key ring without a database, for tests of what it signs."""

from functools import cache

from gateway.verify.minted import Ring
from provisioning.ephemeral_ring import EphemeralRing


@cache
def ring() -> Ring:
    """The ring of this process."""
    return EphemeralRing()
