"""Reading Stripe's events, of several versions of its API, and whatever else may be signed."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.errors import EventMalformed
from provisioning.stripe_events import Plans, StripeEvent, parse_event
from tests.support.stripe_webhooks import PRICE, event, invoice, session, subscription

PLANS = Plans({PRICE: "pro"})


def read(kind: str, content: dict[str, Any], **keys: Any) -> StripeEvent:
    return parse_event(orjson.dumps(event(kind, content, **keys)), PLANS)


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_subscription_events_hold_all_that_matters() -> None:
    content = subscription(
        "org_ours",
        status="trialing",
        trial_end=2_000,
        period_end=2_000,
        created=1_000,
        cancel_at=1_900,
        cancel_at_period_end=True,
        canceled_at=1_500,
    )

    seen = read("customer.subscription.updated", content, id="evt_x", created=1_600, livemode=True)

    assert (seen.type, seen.stamp.at, seen.stamp.event_id) == ("customer.subscription.updated", moment(1_600), "evt_x")
    assert (seen.subscription_id, seen.customer_id, seen.organization_id) == ("sub_stripe1", "cus_1", "org_ours")
    assert (seen.livemode, seen.payment, seen.fetches) == (True, None, False)
    assert seen.snapshot is not None
    assert (seen.snapshot.status, seen.snapshot.plan) == ("trialing", "pro")
    assert (seen.snapshot.started_at, seen.snapshot.trial_ends_at) == (moment(1_000), moment(2_000))
    assert (seen.snapshot.current_period_end, seen.snapshot.cancel_at) == (moment(2_000), moment(1_900))
    assert (seen.snapshot.cancel_at_period_end, seen.snapshot.canceled_at) == (True, moment(1_500))


@pytest.mark.parametrize("kind", ["created", "updated", "deleted", "paused", "resumed", "trial_will_end"])
def test_every_event_about_a_subscription_is_a_snapshot(kind: str) -> None:
    assert read(f"customer.subscription.{kind}", subscription()).snapshot is not None


def test_periods_are_read_where_either_version_writes_them() -> None:
    old = subscription(items={"data": [{"price": {"id": PRICE}}]}, current_period_end=3_000)
    new = subscription(period_end=3_000)

    for content in (old, new):
        seen = read("customer.subscription.updated", content).snapshot
        assert seen is not None
        assert seen.current_period_end == moment(3_000)


@pytest.mark.parametrize(
    "price,plan",
    [
        ({"id": PRICE}, "pro"),
        ({"id": PRICE, "lookup_key": "other", "metadata": {"plan": "other"}}, "pro"),
        ({"id": "price_2", "lookup_key": "team_monthly", "metadata": {"plan": "team"}}, "team"),
        ({"id": "price_2", "lookup_key": "team", "metadata": {}}, "team"),
        ({"id": "price_2", "lookup_key": None}, "price_2"),
        ({"id": "price_2", "metadata": {"plan": "a\nb"}}, "price_2"),
    ],
)
def test_plan_is_named_by_settings_then_by_the_price_itself(price: dict[str, Any], plan: str) -> None:
    seen = read("customer.subscription.updated", subscription(price=price)).snapshot

    assert seen is not None
    assert seen.plan == plan


@pytest.mark.parametrize(
    "kind,payment",
    [("invoice.paid", "paid"), ("invoice.payment_succeeded", "paid"), ("invoice.payment_failed", "failed")],
)
@pytest.mark.parametrize(
    "content",
    [
        invoice("org_ours"),
        {
            "customer": {"id": "cus_1", "object": "customer"},
            "subscription": "sub_stripe1",
            "subscription_details": {"metadata": {"organization_id": "org_ours"}},
        },
        {"customer": "cus_1", "subscription": {"id": "sub_stripe1"}, "metadata": {"organization_id": "org_ours"}},
    ],
    ids=["parent", "details", "expanded"],
)
def test_invoices_tell_what_became_of_a_payment(kind: str, payment: str, content: dict[str, Any]) -> None:
    seen = read(kind, content)

    assert (seen.subscription_id, seen.customer_id, seen.organization_id) == ("sub_stripe1", "cus_1", "org_ours")
    assert (seen.payment, seen.snapshot) == (payment, None)


def test_checkout_names_a_subscription_that_must_be_asked_for() -> None:
    seen = read("checkout.session.completed", session("org_ours"))

    assert (seen.subscription_id, seen.customer_id, seen.organization_id) == ("sub_stripe1", "cus_1", "org_ours")
    assert seen.fetches


def test_what_whoever_pays_may_write_names_no_organization() -> None:
    seen = read("checkout.session.completed", session(client_reference_id="org_victim"))

    assert seen.organization_id is None


@pytest.mark.parametrize(
    "kind,content",
    [
        ("charge.succeeded", {"id": "ch_1"}),
        ("checkout.session.completed", session(mode="payment", subscription=None)),
        ("invoice.paid", {"id": "in_1", "customer": "cus_1"}),
        ("invoice.created", invoice("org_ours")),
    ],
)
def test_other_events_are_about_no_subscription(kind: str, content: dict[str, Any]) -> None:
    assert read(kind, content).subscription_id is None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff"])
def test_what_is_no_object_is_no_event(body: bytes) -> None:
    with pytest.raises(EventMalformed):
        parse_event(body, PLANS)


@pytest.mark.parametrize(
    "keys",
    [
        {"type": None},
        {"id": ""},
        {"id": "evt\0"},
        {"created": "yesterday"},
        {"created": True},
        {"created": -1},
        {"created": 10**15},
        {"data": None},
        {"data": {"object": []}},
    ],
)
def test_event_without_what_makes_it_one_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(EventMalformed):
        parse_event(orjson.dumps(event("x", {}) | keys), PLANS)


@pytest.mark.parametrize("keys", [{"status": None}, {"id": 7}, {"trial_end": "soon"}])
def test_subscription_that_cannot_be_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(EventMalformed):
        read("customer.subscription.updated", subscription(**keys))


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5)
members = st.dictionaries(
    st.sampled_from(["id", "data", "metadata", "price", "organization_id", "x"]), plain, max_size=2
)
json_values = plain | members | st.lists(plain | members, max_size=2)


@given(
    st.sampled_from(["customer.subscription.updated", "invoice.paid", "checkout.session.completed", "x"]),
    st.dictionaries(
        st.sampled_from([*subscription(), *invoice(), *session(), "current_period_end", "subscription_details"]),
        json_values,
        max_size=4,
    ),
    st.dictionaries(st.sampled_from(["id", "type", "created", "livemode", "data"]), json_values, max_size=2),
)
def test_whatever_was_signed_is_read_or_refused(kind: str, keys: dict[str, Any], envelope: dict[str, Any]) -> None:
    body = orjson.dumps(event(kind, subscription("org_ours") | invoice("org_ours") | keys) | envelope)

    try:
        seen = parse_event(body, PLANS)
    except EventMalformed:
        return
    assert seen.stamp.event_id


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_and_never_an_error_of_ours(body: bytes) -> None:
    with pytest.raises(EventMalformed):
        parse_event(body, PLANS)
