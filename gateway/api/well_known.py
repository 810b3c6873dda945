"""`GET /.well-known/jwks.json`: the public keys by which anybody can check what the gateway signs (RFC 7517)."""

import hashlib
from dataclasses import dataclass

import orjson

from gateway.answer import NO_SNIFF, Answer
from gateway.api.endpoints import Call
from gateway.errors import StoreUnavailable
from provisioning.key_ring import KeyRing

_LONGEST_S = 300


@dataclass(frozen=True, slots=True)
class WellKnown:
    """Answers about the key ring.

    Attributes:
        max_age_s: Seconds an answer may be kept; far less than a key is published before it signs.
    """

    ring: KeyRing
    max_age_s: int

    async def keys(self, call: Call) -> Answer:
        """Give the JWK set, or 304 to whoever has it already.

        Raises:
            StoreUnavailable: As `document`.
        """
        body = self.document()
        etag = b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode("ascii")
        fields = (
            (b"ETag", etag),
            (b"Cache-Control", b"public, max-age=%d" % self.max_age_s),
            (b"Access-Control-Allow-Origin", b"*"),
            NO_SNIFF,
        )
        if _has(call.arrived.fields.lines, etag):
            return Answer(304, fields)
        return Answer(200, ((b"Content-Type", b"application/json"), *fields), body)

    def document(self) -> bytes:
        """Write the JWK set.

        Raises:
            StoreUnavailable: No key was ever loaded: an empty set would be believed.
        """
        keys = self.ring.public_keys()
        if not keys:
            raise StoreUnavailable("no_signing_keys")
        return orjson.dumps({"keys": keys})


def max_age_of(publish_ahead_s: float) -> int:
    """How long the set may be kept: whoever keeps it so long still learns of a key well before it signs."""
    return int(min(_LONGEST_S, publish_ahead_s / 2))


def _has(lines: list[bytes], etag: bytes) -> bool:
    """Tell whether `If-None-Match` names what we would send (RFC 9110 §13.1.2)."""
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"if-none-match":
            tags = {tag.strip(b" \t").removeprefix(b"W/") for tag in value.split(b",")}
            if tags & {etag, b"*"}:
                return True
    return False
