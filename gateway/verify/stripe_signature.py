"""`Stripe-Signature`: whether a webhook is Stripe's, meant for this endpoint, and fresh. Pure.

Stripe's scheme v1 (docs.stripe.com/webhooks, "Verify manually"): HMAC-SHA256 in hex over `<t>.<raw body>`, with the
endpoint's secret as it is written. One field may carry several signatures while a secret is rolled.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence

from gateway.errors import WebhookRefused

TOLERANCE_S = 300.0
"""How far the moment of signing may lie from now: what was overheard is worth nothing afterwards."""
_MOST_SIGNATURES = 16
_MOMENT = re.compile(r"[0-9]{1,12}", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)


def check_stripe_signature(field: str, body: bytes, secrets: Sequence[bytes], now: float) -> None:
    """Check a webhook; every signature is compared with that of every secret, in constant time.

    Args:
        field: Value of `Stripe-Signature`.
        body: As it came, byte for byte.
        secrets: `whsec_…`, none of them empty.
        now: Unix seconds.

    Raises:
        WebhookRefused: `headers_malformed`, `signature_wrong`, `too_old`, `too_new`.
    """
    signed_at, signatures = _parse(field)
    good = False
    for secret in secrets:
        expected = hmac.new(secret, b"%b.%b" % (signed_at.encode(), body), hashlib.sha256).hexdigest()
        for signature in signatures:
            good |= hmac.compare_digest(expected, signature)
    if not good:
        raise WebhookRefused("signature_wrong")
    age_s = now - int(signed_at)
    if abs(age_s) > TOLERANCE_S:
        raise WebhookRefused("too_old" if age_s > 0 else "too_new")


def _parse(field: str) -> tuple[str, Sequence[str]]:
    """Take `t=…,v1=…,v1=…` apart; other schemes are left alone, also Stripe's `v0` of test events."""
    moments, signatures = [], []
    for part in field.split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            moments.append(value)
        elif name == "v1":
            signatures.append(value)
    if len(moments) != 1 or _MOMENT.fullmatch(moments[0]) is None or not 0 < len(signatures) <= _MOST_SIGNATURES:
        raise WebhookRefused("headers_malformed")
    if any(_SIGNATURE.fullmatch(signature) is None for signature in signatures):
        raise WebhookRefused("headers_malformed")
    return moments[0], signatures
