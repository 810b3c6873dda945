"""What stands in Redis for others to believe: under names that tell nothing, and sealed against who else writes there.

HMAC-SHA256 under keys that the master key gives, one for names and one for values. A value's seal covers its name, so
that nothing is moved from one name to another; it does not hide what the value says.
"""

import hmac
from hashlib import sha256

from provisioning.sealing import derived_key

NAMES = "names of shared values"
VALUES = "shared values"
_TAG_BYTES = 32


class SealedValues:
    """Names and seals values; pure."""

    def __init__(self, master_key: str, settings_digest: bytes) -> None:
        """Derive the keys.

        Args:
            master_key: `secrets.master_key`; with another one, nothing is found and nothing opens.
            settings_digest: Of the settings that decide what values mean, the same on every replica.
        """
        self._names = derived_key(master_key, NAMES)
        self._values = derived_key(master_key, VALUES)
        self._settings_digest = settings_digest

    def name(self, kind: str, *parts: bytes | str | None) -> str:
        """Name a value: 64 hex digits, one name for each kind and sequence of parts.

        Args:
            kind: Of the value, a word of ours.
            parts: What it is about. None is another part than an empty one.
        """
        whole = b"".join(map(_measured, (self._settings_digest, kind, *parts)))
        return hmac.digest(self._names, whole, sha256).hex()

    def seal(self, name: str, value: bytes) -> bytes:
        """Seal a value for one name: a tag of 32 bytes, then the value as it is."""
        return self._tag(name, value) + value

    def open(self, name: str, sealed: bytes) -> bytes | None:
        """Give what was sealed for this name; None: it was not, or not by us."""
        tag, value = sealed[:_TAG_BYTES], sealed[_TAG_BYTES:]
        return value if hmac.compare_digest(tag, self._tag(name, value)) else None

    def _tag(self, name: str, value: bytes) -> bytes:
        return hmac.digest(self._values, _measured(name) + value, sha256)


def _measured(part: bytes | str | None) -> bytes:
    """Write a part with its kind and length before it: no sequence of parts reads as another."""
    if part is None:
        return b"-"
    data = part.encode() if isinstance(part, str) else part
    return (b"s" if isinstance(part, str) else b"b") + len(data).to_bytes(8) + data
