"""Verifies assertions, and remembers those it verified: the gateway sends one for some minutes."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import jwt

from actorgate_upstream.actor import Actor
from actorgate_upstream.errors import AssertionInvalid, AssertionMissing
from actorgate_upstream.keys import Keys

HEADER = "X-Actor-Assertion"
LEEWAY_S = 5
_REMEMBERED = 10_000
_REQUIRED = ["iss", "aud", "sub", "exp", "iat"]


class Verifier:
    """Verifies for one application."""

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        jwks_url: str | None = None,
        keys: Keys | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Remember what an assertion must say.

        Args:
            issuer: `public_url` of the gateway, to the letter.
            audience: Name of this upstream in the gateway's settings.
            jwks_url: Where the keys are; None: `/.well-known/jwks.json` of the issuer.
            keys: Instead of those of `jwks_url`.
            clock: Unix seconds: until when what was verified is believed.
        """
        if not issuer or not audience:
            raise ValueError("name the issuer and the audience")
        self._issuer, self._audience = issuer, audience
        self._keys = keys or Keys(jwks_url or f"{issuer.rstrip('/')}/.well-known/jwks.json")
        self._clock = clock
        self._verified: OrderedDict[str, tuple[Actor, float, int]] = OrderedDict()

    async def verify_fields(self, values: Sequence[str], *, optional: bool = False) -> Actor | None:
        """Verify what came in all fields of that name.

        Raises:
            AssertionRefused: Missing (unless `optional`), doubled, bad, or not to be judged now.
        """
        if len(values) > 1:
            raise AssertionInvalid("doubled")
        if not values or not values[0]:
            if optional:
                return None
            raise AssertionMissing("no assertion")
        return await self.verify(values[0])

    async def verify(self, assertion: str) -> Actor:
        """Verify one assertion.

        Raises:
            AssertionInvalid: It was checked and is bad.
            KeysUnavailable: It cannot be checked now.
        """
        known = self._verified.get(assertion)
        if known is not None and self._clock() < known[1] and known[2] == self._keys.generation:
            return known[0]
        try:
            header = jwt.get_unverified_header(assertion)
        except jwt.PyJWTError as error:
            raise AssertionInvalid("malformed") from error
        if header.get("alg") != "ES256" or not isinstance(header.get("kid"), str):
            raise AssertionInvalid("algorithm")
        key = await self._keys.find(header["kid"])
        try:
            claims = jwt.decode(
                assertion,
                key,
                algorithms=["ES256"],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": _REQUIRED, "strict_aud": True},
            )
            actor = Actor.of(claims)
        except (jwt.PyJWTError, KeyError, TypeError) as error:
            raise AssertionInvalid(type(error).__name__) from error
        self._remember(assertion, actor, float(claims["exp"]))
        return actor

    def _remember(self, assertion: str, actor: Actor, until: float) -> None:
        self._verified[assertion] = (actor, until, self._keys.generation)
        while len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
