"""Who may report leaked tokens: the public keys of a secret scanning service, and its signatures over what it sends.

GitHub's partner programme (docs.github.com, "Secret scanning partner program", read 2026-11-22): ECDSA on P-256 with
SHA-256 over the raw body, in base64; the keys are JSON at a fixed address. Without a key that is known now, nothing
counts.
"""

import base64
import binascii
import json
import math
import time
from collections.abc import Callable, Mapping

import aiohttp
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gateway.errors import SignatureInvalid, VerifierUnavailable
from provisioning.single_flight import SingleFlight

_BELIEVED_S = 3600.0
_COOLDOWN_S = 60.0  # between fetches for keys that are unknown
_RETRY_S = 10.0  # after a failure
_FETCH = aiohttp.ClientTimeout(total=5.0)
_MAX_BODY_BYTES = 256 * 1024
_MAX_KEYS = 64


class ReporterKeys:
    """Keys by identifier, fetched when a report names one."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Remember where the keys are; nothing is fetched yet.

        Args:
            session: Of its owner; it must send no cookies and read no environment.
            url: Of the keys.
            monotonic: Seconds that are never set back.
        """
        self._session = session
        self._url = url
        self._monotonic = monotonic
        self._keys: Mapping[str, EllipticCurvePublicKey] = {}
        self._fetched_at = -math.inf
        self._quiet_until = -math.inf
        self._failing = False
        self._flights: SingleFlight[None] = SingleFlight()

    async def find(self, identifier: str) -> EllipticCurvePublicKey:
        """Find a key, asking for it at most once a minute.

        Raises:
            SignatureInvalid: There is no such key.
            VerifierUnavailable: The keys cannot be had now.
        """
        if self._monotonic() >= self._quiet_until and (not self._is_fresh or identifier not in self._keys):
            await self._flights.run("keys", self._fetch)
        key = self._keys.get(identifier) if self._is_fresh else None
        if key is not None:
            return key
        if self._failing or not self._is_fresh:
            raise VerifierUnavailable("reporter_keys_unavailable", math.ceil(_RETRY_S))
        raise SignatureInvalid("reporter_key_unknown")

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    @property
    def _is_fresh(self) -> bool:
        return self._monotonic() - self._fetched_at < _BELIEVED_S

    async def _fetch(self) -> None:
        try:
            keys = parse_keys(await self._load())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError):
            self._failing, self._quiet_until = True, self._monotonic() + _RETRY_S
            return
        self._keys, self._failing = keys, False
        self._fetched_at = self._monotonic()
        self._quiet_until = self._fetched_at + _COOLDOWN_S

    async def _load(self) -> bytes:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        body = bytearray()
        # A redirect would let whoever answers choose another source.
        async with self._session.get(self._url, headers=headers, allow_redirects=False, timeout=_FETCH) as response:
            if response.status != 200:
                raise ValueError("status")
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _MAX_BODY_BYTES:
                    raise ValueError("too large")
        return bytes(body)


def parse_keys(body: bytes) -> Mapping[str, EllipticCurvePublicKey]:
    """Read `{"public_keys": [{"key_identifier": …, "key": PEM}]}`; entries that are no P-256 key are left out.

    Raises:
        ValueError: Not of this shape, or without a usable key.
        RecursionError: JSON nested too deep.
    """
    document = json.loads(body.decode())
    entries = document.get("public_keys") if isinstance(document, dict) else None
    keys = {}
    for entry in entries[:_MAX_KEYS] if isinstance(entries, list) else ():
        identifier, text = (entry.get("key_identifier"), entry.get("key")) if isinstance(entry, dict) else (None, None)
        key = _p256(text) if isinstance(text, str) else None
        if isinstance(identifier, str) and identifier and key is not None:
            keys[identifier] = key
    if not keys:
        raise ValueError("no usable key")
    return keys


def _p256(pem: str) -> EllipticCurvePublicKey | None:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1) else None


def check_signature(key: EllipticCurvePublicKey, body: bytes, signature: str) -> None:
    """Check a signature over a body as it came.

    Args:
        key: The reporter's.
        body: Raw.
        signature: DER in base64.

    Raises:
        SignatureInvalid: It is not this key's over this body.
    """
    try:
        key.verify(base64.b64decode(signature, validate=True), body, ECDSA(SHA256()))
    except (binascii.Error, ValueError, InvalidSignature):
        raise SignatureInvalid("signature_wrong") from None
