"""Messages between processes, sealed: whoever can write to Redis can neither forge one nor change it.

HMAC-SHA256 under a key that the master key gives, so that only processes with the same master key hear each other. What
is told holds ids of ours and no secret, and is not encrypted.
"""

import hmac
from hashlib import sha256

from gateway.revocation.changes import Message, from_bytes, to_bytes
from provisioning.sealing import derived_key

PURPOSE = "revocation messages"
_TAG_BYTES = 32


class Forged(Exception):
    """It was not written under our master key."""


class Envelope:
    """Seals and opens messages.

    Attributes:
        place: Under which name those of this master key meet, 16 hex digits; it tells nothing of the key.
    """

    def __init__(self, master_key: str) -> None:
        self._key = derived_key(master_key, PURPOSE)
        self.place = hmac.digest(self._key, b"place", sha256).hex()[:16]

    def seal(self, message: Message) -> bytes:
        """Give a message its tag."""
        body = to_bytes(message)
        return hmac.digest(self._key, body, sha256) + body

    def open(self, sealed: bytes) -> Message | None:
        """Take the tag away; None: ours, in another form.

        Raises:
            Forged: The tag is wrong.
        """
        tag, body = sealed[:_TAG_BYTES], sealed[_TAG_BYTES:]
        if not hmac.compare_digest(tag, hmac.digest(self._key, body, sha256)):
            raise Forged
        return from_bytes(body)
