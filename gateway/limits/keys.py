"""Whose count a request falls under. What leaves here is sealed: no address, id or token can be read from a key. Pure.

Addresses are few enough to try them all against a plain hash, so keys are hashed with a key of their own.
"""

import ipaddress
import unicodedata
from functools import lru_cache
from hashlib import blake2b

from gateway.actors.actor import Actor
from gateway.credentials.jwt_text import parse_jwt
from gateway.credentials.kinds import Credential, CredentialKind
from gateway.errors import CredentialRejected
from gateway.limits.rules import Rule
from provisioning.token_text import API_TOKEN_PREFIX, PUBLIC_ID_LENGTH

NETWORK_BITS = 64
"""Of an IPv6 address: one customer commonly has all addresses of such a network."""
_ID_CHARACTERS = 200


class Keys:
    """Makes keys, the same in every replica that has this master key."""

    def __init__(self, secret: bytes) -> None:
        """Remember the secret.

        Args:
            secret: 32 bytes, for this purpose alone.
        """
        self._secret = secret

    def key(self, rule: Rule, kind: str, value: str) -> bytes:
        """Make the key of one count; a limit that is changed begins anew.

        Args:
            rule: What is counted.
            kind: Of whom: a word of ours.
            value: Who it is.
        """
        whose, who = kind.encode(), value.encode("utf-8", "replace")
        raw = b"%d:%b%d:%b%d:%b" % (len(rule.mark), rule.mark, len(whose), whose, len(who), who)
        return blake2b(raw, digest_size=16, key=self._secret).hexdigest().encode()


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Give what one client cannot change: an IPv4 address, or the /64 of an IPv6 one; empty stays empty.

    Args:
        address: In its one form (`edge/forwarded.py`); empty on a Unix socket.
    """
    if ":" not in address:
        return address
    return str(ipaddress.IPv6Network((address, NETWORK_BITS), strict=False))


def whose(rule: Rule, actor: Actor | None, address: str) -> tuple[str, str]:
    """Say who a request is counted for, as kind and value; who is not known is counted by address."""
    if actor is None or rule.by == "address":
        return "address", network_of(address)
    principal = actor.principal
    if rule.by == "organization" and actor.organization_id:
        return "organization", actor.organization_id
    if rule.by == "token":
        # A session's JWT is replaced every minute; what is minted from an API token counts as that token.
        own = principal.token_id or principal.session_id
        if own:
            return "token", own
    return ("user", actor.user_id) if actor.user_id else ("subject", principal.token_id or principal.subject)


def claimed_id(credential: Credential) -> str:
    """Tell whom a credential claims to be of, unproven, in one spelling; empty where its text does not say."""
    token = credential.token
    if credential.kind is CredentialKind.API_TOKEN:
        claimed = token[len(API_TOKEN_PREFIX) : len(API_TOKEN_PREFIX) + PUBLIC_ID_LENGTH]
    else:
        try:
            subject = parse_jwt(token).payload.get("sub")
        except CredentialRejected:
            return ""
        claimed = subject if isinstance(subject, str) else ""
    return unicodedata.normalize("NFKC", claimed[:_ID_CHARACTERS]).casefold()
