"""Sealing: what PostgreSQL keeps for us and must not be able to read.

AES-256-GCM under a key that HKDF-SHA256 derives from the master key, another one for each purpose: what was sealed for
one purpose never opens for another.
"""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from provisioning.errors import SealBroken

_FORM = b"\x01"  # of what is written below; another cipher would be another number
_NONCE_BYTES = 12
_TAG_BYTES = 16


def derived_key(master_key: str, purpose: str) -> bytes:
    """Derive 32 bytes for one purpose; they tell nothing of the master key or of any other purpose's.

    Args:
        master_key: `secrets.master_key`; HKDF takes it as random, so it must be.
        purpose: A constant of ours, such as `one-time secrets`.
    """
    return HKDF(SHA256(), 32, salt=None, info=f"actorgate {purpose}".encode()).derive(master_key.encode())


class Sealer:
    """Seals and opens small secrets for one purpose."""

    def __init__(self, master_key: str, purpose: str) -> None:
        self._cipher = AESGCM(derived_key(master_key, purpose))

    def seal(self, secret: bytes, context: str) -> bytes:
        """Seal a secret: form, nonce, ciphertext with tag.

        Args:
            secret: Up to some KiB.
            context: Names the place where it is kept, such as the row's id: moved elsewhere, it does not open.
        """
        # 96 random bits are safe for 2 ** 32 secrets under one key, far more than ever are sealed.
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _FORM + nonce + self._cipher.encrypt(nonce, secret, context.encode())

    def unseal(self, sealed: bytes, context: str) -> bytes:
        """Open what `seal` made in the same context.

        Raises:
            SealBroken: It does not open.
        """
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        if sealed[:1] != _FORM or len(body) < _TAG_BYTES:
            raise SealBroken
        try:
            return self._cipher.decrypt(nonce, body, context.encode())
        except InvalidTag as error:
            raise SealBroken from error
