"""Whether a webhook is Clerk's: Svix's signature over id, time and raw body (facts: Clerk, webhooks). Pure.

The library `standardwebhooks` makes the signature that should be there. Its own check reads the clock itself and stops
at the first malformed signature of several, so comparing is done here.
"""

import hmac
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from standardwebhooks import Webhook

from gateway.errors import WebhookRefused

TOLERANCE_S = 300
_ID = re.compile(rb"[!-~]{1,255}")
_TIMESTAMP = re.compile(rb"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_FIELDS = (b"svix-id", b"svix-timestamp", b"svix-signature")


@dataclass(frozen=True, slots=True)
class SignedHead:
    """What the fields of a webhook say; unproven.

    Attributes:
        id: Of the delivery, the same when it is sent again.
        sent_at: Unix seconds, near enough to now.
        signatures: As received, each `v1,…` or of another version.
    """

    id: str
    sent_at: float
    signatures: tuple[bytes, ...]


def read_head(fields: Iterable[tuple[bytes, bytes]], now: float) -> SignedHead:
    """Read the three fields of a webhook, before its body.

    Args:
        fields: Field lines as received.
        now: Unix seconds.

    Raises:
        WebhookRefused: `headers_missing`, also when one is blank; `headers_malformed`, also when one is doubled;
            `too_old`, `too_new`.
    """
    id_, timestamp, signature = _three(fields)
    if _ID.fullmatch(id_) is None or _TIMESTAMP.fullmatch(timestamp) is None:
        raise WebhookRefused("headers_malformed")
    sent_at = float(timestamp)
    age_s = math.floor(now) - math.floor(sent_at)  # in whole seconds, as Clerk's own library counts
    if age_s > TOLERANCE_S:
        raise WebhookRefused("too_old")
    if age_s < -TOLERANCE_S:
        raise WebhookRefused("too_new")
    return SignedHead(id_.decode("ascii"), sent_at, tuple(signature.split()))


def _three(fields: Iterable[tuple[bytes, bytes]]) -> Sequence[bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        folded = name.lower()
        if folded in _FIELDS:
            if folded in found:
                raise WebhookRefused("headers_malformed")
            found[folded] = value.strip()
    values = [found.get(name, b"") for name in _FIELDS]
    if not all(values):
        raise WebhookRefused("headers_missing")
    return values


class SvixSecrets:
    """The signing secrets of one endpoint: the current one, and others while they are replaced."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Take them as Clerk's dashboard shows them.

        Args:
            secrets: `whsec_` and base64; without the prefix too.
        """
        self._webhooks = tuple(Webhook(secret) for secret in secrets)

    def check(self, head: SignedHead, body: bytes) -> None:
        """Check that one of the signatures is by one of the secrets, each pair in constant time.

        Args:
            head: As read.
            body: Raw, as received.

        Raises:
            WebhookRefused: `signature_wrong`; `body_malformed` when it is not UTF-8, which nobody signs.
        """
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise WebhookRefused("body_malformed") from None
        sent_at = datetime.fromtimestamp(math.floor(head.sent_at), UTC)  # what is signed is whole seconds
        for webhook in self._webhooks:
            wanted = webhook.sign(head.id, sent_at, text).encode()
            for signature in head.signatures:
                if hmac.compare_digest(wanted, signature):
                    return
        raise WebhookRefused("signature_wrong")
