"""Clerk's events as values: lenient about what has no effect, strict about what has."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.clerk_events import (
    MembershipGone,
    MembershipTold,
    OrganizationGone,
    OrganizationTold,
    PersonGone,
    PersonTold,
    SessionEnded,
    parse_event,
)
from provisioning.errors import EventMalformed
from provisioning.profile import Profile
from tests.support.clerk_webhooks import envelope, membership, organization, session, user
from tests.support.vectors import vectors

SENT_AT = 1_700_000_000.0
MS = 1_716_883_200_000
KINDS = ["user", "organization", "organizationMembership", "session", "role", "email"]
NAMES = ["id", "user_id", "updated_at", "role", "organization", "public_user_data", "name", "banned", "http_request"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=12,
)


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def fact_of(event: Any) -> Any:
    return parse_event(json.dumps(event).encode(), SENT_AT).fact


def test_person_is_told_with_name_and_verified_address() -> None:
    fact = fact_of(envelope("user.created", user("user_a", MS, email="a@example.com")))

    assert fact == PersonTold("user_a", moment(MS / 1000), Profile("Alice Ng", "a@example.com", "a@example.com"))


def test_unverified_address_is_not_told() -> None:
    told = user("user_a", MS)
    told["email_addresses"][0]["verification"] = None

    assert fact_of(envelope("user.updated", told)).profile == Profile("Alice Ng")


@pytest.mark.parametrize(("flag", "refused"), [("banned", True), ("deprovisioned", True), ("locked", False)])
def test_only_who_may_not_go_on_at_clerk_is_refused(flag: str, refused: bool) -> None:
    assert fact_of(envelope("user.updated", user("user_a", MS, **{flag: True}))).refused is refused


def test_membership_is_told_without_the_prefix_of_its_role() -> None:
    fact = fact_of(envelope("organizationMembership.updated", membership("user_a", "org_a", MS, "org:billing_admin")))

    assert fact == MembershipTold("user_a", "org_a", moment(MS / 1000), "billing_admin", "Acme Inc.", "Alice Ng")


def test_leaving_is_at_the_time_of_the_event_not_of_the_last_change() -> None:
    event = envelope("organizationMembership.deleted", membership("user_a", "org_a", MS), at_ms=MS + 5000)

    assert fact_of(event) == MembershipGone("user_a", "org_a", moment(MS / 1000 + 5))


@pytest.mark.parametrize("timestamp", [MS, MS // 1000])
def test_times_may_be_milliseconds_or_seconds(timestamp: int) -> None:
    event = envelope("organization.created", {"id": "org_a", "name": "A"}, at_ms=timestamp)

    assert fact_of(event) == OrganizationTold("org_a", moment(MS / 1000), "A")


def test_what_tells_no_time_is_of_when_it_was_sent() -> None:
    assert fact_of({"type": "user.created", "data": {"id": "user_123"}}).at == moment(SENT_AT)


@pytest.mark.parametrize("kind", ["session.ended", "session.removed", "session.revoked"])
def test_sessions_end(kind: str) -> None:
    assert fact_of(session(kind, "sess_a", "user_a")) == SessionEnded("sess_a", "user_a")


@pytest.mark.parametrize(
    "kind", ["session.created", "session.pending", "email.created", "organizationDomain.deleted", "user", "user.x.y"]
)
def test_other_events_have_no_effect(kind: str) -> None:
    assert fact_of(envelope(kind, None)) is None


def test_payloads_of_the_vectors_are_read() -> None:
    read = {
        vector["name"].removeprefix("webhook-payload-"): type(parse_event(vector["body"].encode(), SENT_AT).fact)
        for vector in vectors("webhook")
        if vector["name"].startswith("webhook-payload-")
    }

    assert read == {
        "user.created": PersonTold,
        "user.updated": PersonTold,
        "user.deleted": PersonGone,
        "organization.created": OrganizationTold,
        "organization.deleted": OrganizationGone,
        "organizationMembership.created": MembershipTold,
        "organizationMembership.deleted": MembershipGone,
        "session.revoked": SessionEnded,
        "session.pending": type(None),
    }


@pytest.mark.parametrize(
    "event",
    [
        [],
        {},
        {"type": 1},
        {"type": "user.created"},
        envelope("user.created", None),
        envelope("user.created", user("", MS)),
        envelope("user.created", user("user a", MS)),
        envelope("user.created", user("user_\x00", MS)),
        envelope("user.created", user("user_a", True)),
        envelope("user.created", user("user_a", -1)),
        envelope("user.created", user("user_a", 10**30)),
        envelope("user.deleted", {"id": 7}),
        envelope("organizationMembership.created", membership("user_a", "org_a", MS) | {"role": None}),
        envelope("organizationMembership.deleted", {"id": "orgmem_1"}),
        envelope("session.ended", {"id": None}),
    ],
)
def test_what_lacks_what_its_effect_needs_is_malformed(event: Any) -> None:
    with pytest.raises(EventMalformed):
        fact_of(event)


@given(
    st.sampled_from(KINDS),
    st.sampled_from(["created", "updated", "deleted", "ended", "revoked"]),
    JSON,
    JSON,
)
def test_whatever_clerk_may_send_is_read_or_malformed(about: str, what: str, data: Any, timestamp: Any) -> None:
    event = {"type": f"{about}.{what}", "data": data, "timestamp": timestamp, "event_attributes": data}
    try:
        read = parse_event(json.dumps(event).encode(), SENT_AT)
    except EventMalformed:
        return
    assert read.kind == event["type"]


@given(st.binary(max_size=30))
def test_whatever_is_no_event_is_malformed(body: bytes) -> None:
    with pytest.raises(EventMalformed):
        parse_event(body, SENT_AT)


def test_organization_without_a_name_is_called_by_its_slug() -> None:
    event = envelope("organization.updated", organization("org_a", MS, name=None))

    assert fact_of(event) == OrganizationTold("org_a", moment(MS / 1000), "acme")
