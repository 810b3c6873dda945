"""Svix's signature: Clerk's own vectors, and whatever else may be sent."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import WebhookRefused
from gateway.verify.svix import SvixSecrets, read_head
from tests.support.clerk_webhooks import OTHER_SECRET, SECRET, Delivery
from tests.support.vectors import name_of, vectors

REASONS = {
    "no-match": {"signature_wrong"},
    "too-old": {"too_old"},
    "too-new": {"too_new"},
    "invalid": {"headers_malformed"},
    "missing-headers": {"headers_missing"},
}
GOOD = Delivery({"type": "user.created"})
NAMES = [b"svix-id", b"svix-timestamp", b"svix-signature"]


def opened(
    fields: list[tuple[bytes, bytes]], body: bytes, now: float = GOOD.sent_at, *, secrets: tuple[str, ...] = (SECRET,)
) -> None:
    head = read_head(fields, now)
    SvixSecrets(secrets).check(head, body)


def fields_of(delivery: Delivery) -> list[tuple[bytes, bytes]]:
    pairs = (line.split(": ", 1) for line in delivery.lines)
    return [(name.encode(), value.encode()) for name, value in pairs]


@pytest.mark.parametrize("vector", vectors("webhook"), ids=name_of)
def test_clerks_vectors(vector: dict[str, Any]) -> None:
    fields = [(name.encode(), value.encode()) for name, value in vector["headers"].items()]
    body, expected = vector["body"].encode(), vector["expect"]

    if expected["ok"]:
        opened(fields, body, vector["now"], secrets=(vector["secret"],))
        return
    with pytest.raises(WebhookRefused) as refused:
        opened(fields, body, vector["now"], secrets=(vector["secret"],))
    assert refused.value.reason in REASONS[expected["error"]]


def test_there_are_vectors() -> None:
    assert len(vectors("webhook")) > 25


def test_any_of_several_secrets_counts() -> None:
    opened(fields_of(GOOD), GOOD.body, secrets=(OTHER_SECRET, SECRET))
    with pytest.raises(WebhookRefused):
        opened(fields_of(GOOD), GOOD.body, secrets=(OTHER_SECRET,))


def test_within_the_last_second_of_five_minutes_it_still_counts() -> None:
    opened(fields_of(GOOD), GOOD.body, GOOD.sent_at + 300.9)
    with pytest.raises(WebhookRefused, match="too_old"):
        opened(fields_of(GOOD), GOOD.body, GOOD.sent_at + 301.0)


@pytest.mark.parametrize("name", NAMES)
def test_doubled_field_is_refused(name: bytes) -> None:
    fields = fields_of(GOOD)
    doubled = [*fields, *((spelling.upper(), value) for spelling, value in fields if spelling == name)]

    with pytest.raises(WebhookRefused, match="headers_malformed"):
        opened(doubled, GOOD.body)


def test_body_that_is_no_text_is_refused() -> None:
    with pytest.raises(WebhookRefused, match="body_malformed"):
        opened(fields_of(GOOD), b"\xff" + GOOD.body)


@given(
    st.lists(
        st.tuples(st.sampled_from([*NAMES, b"Svix-Id"]), st.binary(max_size=40) | st.sampled_from([b"1e3", b"inf"])),
        max_size=5,
    ),
    st.binary(max_size=40),
)
def test_whatever_is_sent_unsigned_is_refused_in_our_terms(fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    with pytest.raises(WebhookRefused):
        opened(fields, body)


@given(st.lists(st.sampled_from([b"v1,", b"v1", b",", b"v1a,x", b"v1,\xff", b"v2,AAAA"]), max_size=6))
def test_a_good_signature_counts_among_bad_ones(others: list[bytes]) -> None:
    *head, (name, signature) = fields_of(GOOD)

    opened([*head, (name, b" ".join([*others, signature]))], GOOD.body)
