"""How our long-lived tokens are written: made, and read again without asking anybody. Pure but for the randomness.

`agt_<12 public id><43 secret><6 checksum>` is an API token of a person, `ags_<43 secret><6 checksum>` a system token;
all of it in base62. The checksum is the CRC-32 of everything before it: no protection, but a typing error, a cut or a
guess is refused without a store, and whoever scans for leaked tokens knows one for certain.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass, field

from provisioning.ids import base62

API_TOKEN_PREFIX = "agt_"
SYSTEM_TOKEN_PREFIX = "ags_"
PUBLIC_ID_LENGTH = 12
SECRET_LENGTH = 43  # 62 ** 43 is a little more than 2 ** 256
CHECKSUM_LENGTH = 6  # 62 ** 6 is more than 2 ** 32
API_TOKEN_LENGTH = len(API_TOKEN_PREFIX) + PUBLIC_ID_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH
SYSTEM_TOKEN_LENGTH = len(SYSTEM_TOKEN_PREFIX) + SECRET_LENGTH + CHECKSUM_LENGTH
DIGEST_BYTES = 32

# For secret scanners: both kinds, as a word of their own. A hit is certain once its checksum holds.
SCANNER_PATTERN = r"\b(?:agt_[0-9A-Za-z]{61}|ags_[0-9A-Za-z]{49})\b"

_SHAPE = re.compile(r"agt_([0-9A-Za-z]{12})[0-9A-Za-z]{49}")
_SYSTEM_SHAPE = re.compile(r"ags_[0-9A-Za-z]{49}")
_NO_DIGEST = bytes(DIGEST_BYTES)


@dataclass(frozen=True, slots=True)
class TokenText:
    """An API token's text whose form and checksum are right; whether such a token exists is another question.

    Attributes:
        text: All of it, a secret.
        public_id: 12 base62 characters: finds the row, and is safe to log.
    """

    text: str = field(repr=False)
    public_id: str

    def digest(self) -> bytes:
        """Give the SHA-256 of the whole text: what is stored. A slow hash would add nothing to 256 random bits."""
        return digest_of(self.text)

    def matches(self, digest: bytes | None) -> bool:
        """Compare with what is stored, in constant time; None, for no row, takes the same way and is never equal."""
        same = hmac.compare_digest(self.digest(), _NO_DIGEST if digest is None else digest)
        return same and digest is not None


@dataclass(frozen=True, slots=True)
class SystemTokenText:
    """A system token's text whose form and checksum are right.

    Attributes:
        text: All of it, a secret.
    """

    text: str = field(repr=False)

    def digest(self) -> bytes:
        """Give the SHA-256 of the whole text; the setting `system_tokens` holds it as hex."""
        return digest_of(self.text)


def new_token() -> TokenText:
    """Make an API token of 256 random bits and a public id of 71."""
    public_id = base62(secrets.randbelow(62**PUBLIC_ID_LENGTH), PUBLIC_ID_LENGTH)
    return TokenText(_checked(f"{API_TOKEN_PREFIX}{public_id}{_secret()}"), public_id)


def parse_token(text: str) -> TokenText | None:
    """Read an API token; None for another kind, length or alphabet, or a wrong checksum. Nothing is raised."""
    match = _SHAPE.fullmatch(text)
    return TokenText(text, match[1]) if match is not None and _is_checked(text) else None


def new_system_token() -> SystemTokenText:
    """Make a system token of 256 random bits."""
    return SystemTokenText(_checked(f"{SYSTEM_TOKEN_PREFIX}{_secret()}"))


def parse_system_token(text: str) -> SystemTokenText | None:
    """Read a system token; None as for `parse_token`. Nothing is raised."""
    whole = _SYSTEM_SHAPE.fullmatch(text) is not None and _is_checked(text)
    return SystemTokenText(text) if whole else None


def digest_of(text: str) -> bytes:
    """Give the SHA-256 of a token's text.

    Args:
        text: ASCII.
    """
    return hashlib.sha256(text.encode("ascii")).digest()


def _secret() -> str:
    return base62(secrets.randbelow(62**SECRET_LENGTH), SECRET_LENGTH)


def _checked(text: str) -> str:
    return text + _checksum(text)


def _is_checked(text: str) -> bool:
    return text[-CHECKSUM_LENGTH:] == _checksum(text[:-CHECKSUM_LENGTH])


def _checksum(text: str) -> str:
    return base62(zlib.crc32(text.encode("ascii")), CHECKSUM_LENGTH)
