"""Clerk's publishable key: the one setting that names an instance's issuer, signing keys and cookie names.

`pk_live_` or `pk_test_`, then base64 of the Frontend API host and `$` (clerk/javascript packages/shared/src/keys.ts).
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Literal

_KEY = re.compile(r"pk_(live|test)_([A-Za-z0-9+/]+)={0,2}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::[0-9]{1,5})?", re.ASCII)
_MAX_CHARS = 512


@dataclass(frozen=True, slots=True)
class PublishableKey:
    """What a publishable key says.

    Attributes:
        frontend_api: Host of the Frontend API, without scheme.
        instance_type: `production` for `pk_live_`, `development` for `pk_test_`.
        cookie_suffix: Eight characters of `[A-Za-z0-9_-]`, as in `__session_<suffix>`.
        issuer: `iss` of the instance's session tokens.
        jwks_url: Where its public signing keys are.
    """

    frontend_api: str
    instance_type: Literal["production", "development"]
    cookie_suffix: str
    issuer: str
    jwks_url: str


def parse_publishable_key(text: str) -> PublishableKey:
    """Read a publishable key.

    Args:
        text: The key exactly as configured: its cookie suffix is a hash of this spelling, padding included.

    Raises:
        ValueError: Not a publishable key; the message never holds the key.
    """
    match = _KEY.fullmatch(text) if len(text) <= _MAX_CHARS else None
    if match is None:
        raise ValueError("write the publishable key of your Clerk instance: pk_live_… or pk_test_…, then base64")
    try:
        decoded = base64.b64decode(match[2] + "=" * (-len(match[2]) % 4), validate=True).decode("ascii")
    except ValueError:
        raise ValueError("the publishable key does not decode: copy it again from the Clerk dashboard") from None
    host = decoded.removesuffix("$")
    if host == decoded or _HOST.fullmatch(host) is None:
        raise ValueError("the publishable key does not hold a Frontend API host: copy it again from Clerk's dashboard")
    return PublishableKey(
        frontend_api=host,
        instance_type="production" if match[1] == "live" else "development",
        cookie_suffix=_cookie_suffix(text),
        issuer=f"https://{host}",
        jwks_url=f"https://{host}/.well-known/jwks.json",
    )


def _cookie_suffix(text: str) -> str:
    """Eight characters of the hash Clerk's front end puts into its cookie names; a name, not a protection."""
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest)[:8].decode()
