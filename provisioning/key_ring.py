"""The key ring: signs and verifies everything of our own making, from memory; all replicas hold the same keys.

The keys are kept sealed in PostgreSQL (`ring_records.py`) and follow each other by themselves (`signing_key.py`). While
PostgreSQL is away, what is in memory goes on signing and verifying.
"""

import asyncio
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import jwt
import structlog

from provisioning.background import end_tasks
from provisioning.errors import DatabaseUnavailable, KeysUnopened, RingEmpty, SealBroken, SignatureRejected
from provisioning.ring_records import KeyRow, RingRecords, is_over
from provisioning.signing_key import RingKey, RotationRules, next_signs_from, over_at, signer

_log = structlog.get_logger()
ALGORITHM = "ES256"
COOLDOWN_S = 10.0
LEEWAY_S = 5.0
_LOCK_POLL_S = 0.05
_RETRY_S = 1.0  # while there is no key at all
_FIRST_WAIT_S = 5.0
# 64 bytes in base64url. Decoders ignore the last four bits, and what is not of the alphabet: a token would have many
# spellings. Header and payload have one, since they are signed as text.
_SIGNATURE = re.compile(r"[A-Za-z0-9_-]{85}[AQgw]")
# The signature is PyJWT's to judge; the claims are ours, by an injected clock and to the letter.
_SIGNATURE_ALONE = jwt.types.Options(
    verify_signature=True,
    verify_exp=False,
    verify_nbf=False,
    verify_iat=False,
    verify_aud=False,
    verify_iss=False,
    verify_sub=False,
    verify_jti=False,
)


class KeyRing:
    """Signing keys by `kid`, of all replicas.

    Attributes:
        issuer: `iss` of everything signed here: callers of `sign` write it, `verify` demands it.
        generation: Changes whenever a key is gone: what it signed is no longer good.
    """

    def __init__(
        self,
        records: RingRecords,
        issuer: str,
        rules: RotationRules,
        *,
        refresh_every_s: float = 60.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember the settings; there are no keys before `start`.

        Args:
            records: Where the keys are kept.
            issuer: Our public URL, as it is written.
            rules: When keys follow each other.
            refresh_every_s: Seconds between two looks into PostgreSQL.
            clock: Unix seconds.
            monotonic: Clock that never steps.
        """
        self.issuer = issuer
        self.generation = 0
        self._records = records
        self._rules = rules
        self._refresh_every_s = refresh_every_s
        self._clock = clock
        self._monotonic = monotonic
        self._keys: tuple[RingKey, ...] = ()  # in order
        self._by_kid: Mapping[str, RingKey] = {}
        self._unopened: frozenset[str] = frozenset()
        self._asked_at = -math.inf
        self._failing = False
        self._flight: asyncio.Task[None] | None = None
        self._refresher: asyncio.Task[None] | None = None

    @property
    def keys(self) -> Sequence[RingKey]:
        """All keys, in the order in which they sign."""
        return self._keys

    async def start(self) -> None:
        """Load the ring, making its first key if there is none, and keep it fresh.

        A PostgreSQL that does not answer is waited for in the background: until then there is nothing to sign with.

        Raises:
            KeysUnopened: Keys do not open under this master key.
        """
        try:
            async with asyncio.timeout(_FIRST_WAIT_S):
                await self._load(strict=True)
        except (DatabaseUnavailable, TimeoutError) as error:
            _log.warning("signing keys cannot be read yet", cause=str(error) or type(error).__name__)
            self._failing = True
        self._refresher = asyncio.create_task(self._keep_fresh())

    async def close(self) -> None:
        """End what runs; what is in memory goes on."""
        await end_tasks(self._refresher, self._flight, quietly=True)
        self._refresher = self._flight = None

    def sign(self, claims: Mapping[str, object]) -> str:
        """Sign claims as a compact JWT (RFC 7519) with the active key: `{"alg":"ES256","kid":…,"typ":"JWT"}`.

        Args:
            claims: All of them, as JSON; `iss`, `aud`, `iat` and `exp` among them, or `verify` refuses.

        Raises:
            RingEmpty: There is no key.
        """
        key = signer(self._keys, self._clock())
        if key is None:
            raise RingEmpty
        return jwt.encode(dict(claims), key.private_key, algorithm=ALGORITHM, headers={"kid": key.kid})

    def verify(self, token: str, *, audience: str) -> dict[str, object]:
        """Check signature, issuer, audience and times of a token of our own, and give its claims.

        Args:
            token: Whatever was presented.
            audience: The whole `aud`, one text.

        Raises:
            SignatureRejected: Checked and bad. After `kid_unknown`, `refresh` may help.
            RingEmpty: There is no key to check with: neither good nor bad.
        """
        if not self._keys:
            raise RingEmpty
        key = self._key_of(token)
        try:
            claims: dict[str, object] = jwt.decode(
                token, key.public_key, algorithms=[ALGORITHM], options=_SIGNATURE_ALONE
            )
        except jwt.InvalidSignatureError:
            raise SignatureRejected("signature") from None
        except jwt.PyJWTError:
            raise SignatureRejected("malformed") from None
        check_claims(claims, self.issuer, audience, self._clock())
        return claims

    def public_keys(self) -> list[dict[str, str]]:
        """List every key that verifies now or will soon, as JWKs (RFC 7517)."""
        now = self._clock()
        return [key.jwk for key in self._keys if not self._is_over(key, now)]

    async def refresh(self) -> None:
        """Read the ring again, because a `kid` is unknown; once per cool-down for all who ask.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be asked, or could not a moment ago.
        """
        if self._flight is None and self._monotonic() - self._asked_at >= COOLDOWN_S:
            self._asked_at = self._monotonic()
            self._begin()
        if self._flight is not None:
            await asyncio.wait({self._flight})  # goes on when whoever asked leaves
        if self._failing:
            raise DatabaseUnavailable

    def _begin(self) -> asyncio.Task[None]:
        """Look into PostgreSQL, one look at a time: an older one must not end after a newer one."""
        if self._flight is None:
            self._flight = asyncio.create_task(self._load(strict=False))
            self._flight.add_done_callback(self._landed)
        return self._flight

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flight = None
        if flight.cancelled():
            return
        error = flight.exception()
        if isinstance(error, DatabaseUnavailable) and not self._failing:
            _log.warning("signing keys cannot be refreshed; those in memory stay", reason=error.reason)
        elif error is not None and not isinstance(error, DatabaseUnavailable):
            _log.error("signing keys cannot be refreshed; those in memory stay", exc_info=error)
        self._failing = error is not None

    def _key_of(self, token: str) -> RingKey:
        if _SIGNATURE.fullmatch(token.rpartition(".")[2]) is None:
            raise SignatureRejected("malformed")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise SignatureRejected("malformed") from None
        if header.get("alg") != ALGORITHM:
            raise SignatureRejected("algorithm")
        kid = header.get("kid")
        key = self._by_kid.get(kid) if isinstance(kid, str) else None
        if key is None or self._is_over(key, self._clock()):
            raise SignatureRejected("kid_unknown")
        return key

    def _is_over(self, key: RingKey, now: float) -> bool:
        ends = over_at(self._keys, key, self._rules)
        return ends is not None and ends <= now

    async def _keep_fresh(self) -> None:
        while True:
            # Apart from each other, so that replicas do not all ask in one moment.
            spread = 0.8 + 0.4 * secrets.randbelow(1000) / 1000
            await asyncio.sleep(spread * (self._refresh_every_s if self._keys else _RETRY_S))
            await asyncio.wait({self._begin()})

    async def _load(self, *, strict: bool) -> None:
        """Read the ring, doing what is due.

        Args:
            strict: A key that does not open is an error; else it is left out, and what is known of it stays.
        """
        rows = await self._records.read()
        self._adopt(rows, strict=strict)  # first: with the wrong master key nothing may be changed
        while self._is_due(rows):
            turned = await self._records.turn(self._rules, self._clock())
            if turned is None:  # another replica is at it
                if rows:
                    return  # and the next look shows what it did
                await asyncio.sleep(_LOCK_POLL_S)
                turned = await self._records.read()
            rows = turned
            self._adopt(rows, strict=strict)

    def _is_due(self, rows: Sequence[KeyRow]) -> bool:
        if self._unopened:
            return False
        now = self._clock()
        return next_signs_from(rows, self._rules, now) is not None or any(
            is_over(rows, row, self._rules, now) for row in rows
        )

    def _adopt(self, rows: Sequence[KeyRow], *, strict: bool) -> None:
        keys, unopened = [], set()
        for row in rows:
            known = self._by_kid.get(row.kid)
            if known is not None and known.signs_from == row.signs_from:
                keys.append(known)
                continue
            try:
                keys.append(row.open(self._records.sealer))
            except SealBroken as error:
                if strict:
                    raise KeysUnopened(unopened_text(row.kid)) from error
                unopened.add(row.kid)
        for kid in unopened - self._unopened:
            _log.error("a signing key does not open", kid=kid)
        gone = self._by_kid.keys() - {key.kid for key in keys}
        self._unopened = frozenset(unopened)
        self._keys, self._by_kid = tuple(keys), {key.kid: key for key in keys}
        if gone:
            self.generation += 1


def unopened_text(kid: str) -> str:
    """Say to an operator what to do about a key that does not open."""
    return (
        f"cannot open the signing keys: {kid} is damaged, or was sealed under another secrets.master_key; put that one "
        "back, or give up all keys and what they signed with `gateway keys rotate --discard`"
    )


def check_claims(claims: Mapping[str, object], issuer: str, audience: str, now: float) -> None:
    """Judge the claims of a token whose signature is good. Pure.

    Raises:
        SignatureRejected: One is missing, of the wrong type, or says otherwise.
    """
    times = {name: _seconds(claims.get(name)) for name in ("exp", "iat", "nbf")}
    if times["exp"] is None or times["iat"] is None or (times["nbf"] is None and "nbf" in claims):
        raise SignatureRejected("claims")
    if claims.get("iss") != issuer:
        raise SignatureRejected("issuer")
    if claims.get("aud") != audience:  # a list is none of ours, whatever it holds
        raise SignatureRejected("audience")
    if now >= times["exp"] + LEEWAY_S:
        raise SignatureRejected("expired")
    if max(times["iat"], times["nbf"] or 0.0) > now + LEEWAY_S:
        raise SignatureRejected("not_yet")


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    with suppress(OverflowError):
        return float(value) if math.isfinite(value) else None
    return None
