"""The verifier: a credential in, a principal out, or the reason why not. The one place that decides authenticity.

Sessions and machine tokens of one Clerk instance, and what the gateway minted itself. System tokens name nobody and are
known without a look at anything but the settings: `actors/system_tokens.py`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from gateway.credentials.jwt_text import UnverifiedJwt, parse_jwt
from gateway.credentials.kinds import Credential, CredentialKind
from gateway.credentials.machine import MACHINE, opaque_kind
from gateway.errors import CredentialRejected
from gateway.verify.claims import read_principal
from gateway.verify.machine import MachineRules, machine_key_id, read_machine
from gateway.verify.machine_tokens import MachineTokens
from gateway.verify.minted import KEY_UNKNOWN, MINTED, MintedTokens
from gateway.verify.principal import Principal
from gateway.verify.session import SessionRules, check_claims, check_class, check_signature, key_id
from gateway.verify.signing_keys import WAIT_S, SigningKeys


class Verifier:
    """Verifies credentials of one Clerk instance."""

    def __init__(
        self,
        keys: SigningKeys,
        rules: SessionRules,
        clock: Callable[[], float] = time.time,
        minted: MintedTokens | None = None,
        machines: MachineRules | None = None,
        opaque: MachineTokens | None = None,
    ) -> None:
        """Take the instance's keys and rules.

        Args:
            keys: Started and closed by their owner.
            rules: What tokens must say.
            clock: Unix seconds.
            minted: Verifies tokens of our own; None: there are none.
            machines: What machine tokens must say; None: as `rules`, authorized parties aside.
            opaque: Asks Clerk about machine tokens that prove nothing by themselves; None: they are unknown.
        """
        self.keys = keys
        self._minted = minted
        self._rules = rules
        self._machines = machines or MachineRules.beside(rules)
        self._opaque = opaque
        self._clock = clock

    @property
    def generation(self) -> int:
        """Changes when signing keys change: what was verified under another generation must be verified again."""
        return self.keys.generation

    def verify_now(self, credential: Credential) -> Principal | None:
        """Verify without waiting.

        Returns:
            None when signing keys, or Clerk, must be asked first: await `verify`.

        Raises:
            CredentialRejected: Checked and bad.
            VerifierUnavailable: Signing keys cannot be had now.
        """
        if credential.kind in MINTED:
            try:
                return self._minted_tokens(credential).verify(credential)
            except CredentialRejected as error:
                if error.reason == KEY_UNKNOWN:
                    return None
                raise
        if _is_opaque(credential):
            return self._opaque_tokens().remembered(credential)
        token = _readable(credential)
        key = self.keys.find_key(self._key_id(token, credential.kind))
        if key is None:
            return None
        try:
            check_signature(token, key.public_key)
        except CredentialRejected:
            if self.keys.may_refetch():  # the key may have been rotated under its name
                return None
            raise
        return self._principal(token, credential)

    async def verify(self, credential: Credential) -> Principal:
        """Verify, asking for signing keys when needed; waits less than a second in all, for Clerk itself two.

        Raises:
            CredentialRejected: Checked and bad.
            VerifierUnavailable: Signing keys cannot be had now, or Clerk does not tell.
        """
        if credential.kind in MINTED:
            return await self._minted_tokens(credential).refreshed(credential)
        if _is_opaque(credential):
            return await self._opaque_tokens().verify(credential)
        token = _readable(credential)
        until = asyncio.get_running_loop().time() + WAIT_S
        key = await self.keys.fetch_key(self._key_id(token, credential.kind))
        try:
            check_signature(token, key.public_key)
        except CredentialRejected:
            newer = await self.keys.fetch_newer(key, max(0.0, until - asyncio.get_running_loop().time()))
            if newer is None:
                raise
            check_signature(token, newer.public_key)
        return self._principal(token, credential)

    async def close(self) -> None:
        """End what is under way; the signing keys are their owner's."""
        if self._opaque is not None:
            await self._opaque.close()

    def _minted_tokens(self, credential: Credential) -> MintedTokens:
        if credential.refusal is not None:
            raise CredentialRejected(credential.refusal)
        if self._minted is None:
            raise CredentialRejected("token-unknown")
        return self._minted

    def _opaque_tokens(self) -> MachineTokens:
        if self._opaque is None:
            raise CredentialRejected("token-unknown")
        return self._opaque

    def _key_id(self, token: UnverifiedJwt, kind: CredentialKind) -> str:
        return machine_key_id(token, kind, self._machines) if kind in MACHINE else key_id(token, self._rules)

    def _principal(self, token: UnverifiedJwt, credential: Credential) -> Principal:
        if credential.kind in MACHINE:
            principal = read_machine(token, credential.kind, self._machines, self._clock())
        else:
            claims = check_claims(token, self._rules, credential.carrier, self._clock())
            principal = read_principal(claims, credential.carrier, self._rules.name_claims, self._rules.email_claims)
        return replace(principal, recheck_at=self.keys.good_until)


def _is_opaque(credential: Credential) -> bool:
    return credential.kind in MACHINE and opaque_kind(credential.token.encode()) is not None


def _readable(credential: Credential) -> UnverifiedJwt:
    """Take the token apart unless it is refused without.

    Raises:
        CredentialRejected: The credential's own refusal; `token-unknown` for kinds of which no token exists;
            `token-invalid` and `token-type-mismatch` by what the token says of itself.
    """
    if credential.refusal is not None:
        raise CredentialRejected(credential.refusal)
    if credential.kind is not CredentialKind.SESSION and credential.kind not in MACHINE:
        raise CredentialRejected("token-unknown")
    token = parse_jwt(credential.token)
    if credential.kind is CredentialKind.SESSION:
        check_class(token)
    return token
