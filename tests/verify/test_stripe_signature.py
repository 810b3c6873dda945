"""`Stripe-Signature`: only what Stripe signed lately, with a secret of this endpoint, over these very bytes."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import WebhookRefused
from gateway.verify.stripe_signature import TOLERANCE_S, check_stripe_signature

NOW = 1_700_000_000
BODY = b'{"id": "evt_1"}'
SECRETS = (b"whsec_new", b"whsec_old")


def signed(secret: bytes = SECRETS[0], body: bytes = BODY, at: int | str = NOW) -> str:
    return hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256).hexdigest()


def field(*signatures: str, at: int | str = NOW) -> str:
    return ",".join([f"t={at}", *(f"v1={signature}" for signature in signatures)])


def reason_of(value: str, body: bytes = BODY, now: float = NOW) -> str | None:
    try:
        check_stripe_signature(value, body, SECRETS, now)
    except WebhookRefused as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    "value",
    [
        field(signed()),
        field(signed(SECRETS[1])),
        field("0" * 64, signed()),
        field(signed(), "0" * 64),
        f"t={NOW}, v1={signed()}, v0=nonsense",
        f"v1={signed()},t={NOW},scheme",
    ],
)
def test_what_one_of_the_secrets_signed_is_taken(value: str) -> None:
    assert reason_of(value) is None


def test_signature_of_another_program_is_taken() -> None:
    # printf '1700000000.{"id": "evt_1"}' | openssl dgst -sha256 -hmac whsec_new
    digest = "e8852b8fc73dd537655dffca7885106cd7ddc96a7a1a5ebdf65e3e447f4ed6a4"

    assert reason_of(field(digest)) is None


@pytest.mark.parametrize(
    "value",
    [
        field(signed(b"whsec_other")),
        field(signed(b"")),
        field(signed(body=BODY + b" ")),
        field(signed(at=NOW - 1)),
        f"t={NOW + 1},v1={signed()}",
    ],
)
def test_other_secrets_bytes_and_moments_are_refused(value: str) -> None:
    assert reason_of(value) == "signature_wrong"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "t=",
        f"t={NOW}",
        f"v1={signed()}",
        f"t={NOW},v0={signed()}",
        f"t={NOW},v1=",
        f"t={NOW},v1={signed().upper()}",
        f"t={NOW},v1={signed()}0",
        f"t={NOW},t={NOW},v1={signed()}",
        f"t=-1,v1={signed(at=-1)}",
        f"t=1e9,v1={signed(at='1e9')}",
        f"t={'9' * 13},v1={signed(at='9' * 13)}",
        f"t=\u0661,v1={signed()}",
        field(*["0" * 64] * 17),
    ],
)
def test_fields_of_another_form_are_refused(value: str) -> None:
    assert reason_of(value) == "headers_malformed"


@pytest.mark.parametrize(
    "shift,reason", [(-TOLERANCE_S - 1, "too_new"), (TOLERANCE_S + 1, "too_old"), (10**9, "too_old")]
)
def test_what_was_signed_long_ago_or_in_the_future_is_refused(shift: float, reason: str) -> None:
    assert reason_of(field(signed()), now=NOW + shift) == reason


@pytest.mark.parametrize("shift", [-TOLERANCE_S, TOLERANCE_S])
def test_clocks_may_differ_by_the_tolerance(shift: float) -> None:
    assert reason_of(field(signed()), now=NOW + shift) is None


@given(st.text(max_size=80), st.binary(max_size=20))
def test_nothing_made_up_is_taken(value: str, body: bytes) -> None:
    assert reason_of(value, body) in ("headers_malformed", "signature_wrong")


@given(st.binary(), st.integers(0, 10**11))
def test_any_body_that_was_signed_is_taken(body: bytes, at: int) -> None:
    assert reason_of(field(signed(body=body, at=at), at=at), body, at) is None
