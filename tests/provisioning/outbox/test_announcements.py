from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.outbox.announcements import Announcements
from provisioning.outbox.effects import TOPICS, Effect, Topic
from provisioning.records import User
from tests.provisioning.outbox.test_posthog import ACME, ALICE, ALL, AT


@dataclass(frozen=True)
class ATrial:
    plan: str = "pro"
    trial_ends_at: datetime | None = AT + timedelta(days=14)


def everything(announcements: Announcements) -> tuple[Effect, ...]:
    return (
        *announcements.new_user(ALICE, ACME, ATrial()),
        *announcements.profile_unknown(ALICE),
        *announcements.profile_known(ALICE),
        *announcements.joined(ALICE, ACME, "member"),
        *announcements.login(ALICE, ACME.id, "sess_1", AT),
        *announcements.usage("report_viewed", ALICE.id, ACME.id, AT, key="batch_1"),
    )


def test_a_new_user_with_a_trial_is_told_to_everybody_once() -> None:
    made = ALL.new_user(ALICE, ACME, ATrial())

    assert [(effect.topic, effect.kind) for effect in made] == [
        ("slack", "user_created"),
        ("posthog", "user_created"),
        ("posthog", "trial_started"),
        ("stripe", "trial"),
    ]


def test_without_a_trial_stripe_hears_nothing() -> None:
    assert {effect.topic for effect in ALL.new_user(ALICE, ACME)} == {"slack", "posthog"}


@given(st.sets(st.sampled_from(TOPICS)))
def test_only_who_is_configured_is_told(topics: set[Topic]) -> None:
    told = {effect.topic for effect in everything(Announcements(frozenset(topics)))}

    assert told == topics - {"sessions"}  # which are ended, not announced


def test_the_same_fact_told_twice_is_the_same_effect() -> None:
    first, second = everything(ALL), everything(ALL)

    assert [(one.topic, one.key) for one in first] == [(one.topic, one.key) for one in second]
    assert len({(one.topic, one.key) for one in first}) == len(first)


def test_keys_fit_into_what_stripe_takes_and_payloads_into_json() -> None:
    for effect in everything(ALL):
        assert len(effect.key) < 150
        assert orjson.loads(orjson.dumps(effect.payload)) is not None


@pytest.mark.parametrize(("user", "name"), [(replace(ALICE, name=None), "name"), (replace(ALICE, email=None), "email")])
def test_what_nobody_knows_of_a_person_is_not_set(user: User, name: str) -> None:
    effect = Announcements(frozenset({"posthog"})).new_user(user, ACME)[0]
    person = effect.payload["person"]

    assert isinstance(person, dict)
    assert name not in person


def test_moments_are_told_in_utc() -> None:
    elsewhere = datetime(2026, 11, 23, 3, 0, tzinfo=timezone(timedelta(hours=2)))
    (effect,) = ALL.login(ALICE, ACME.id, "sess_1", elsewhere)

    assert effect.payload["at"] == "2026-11-23T01:00:00.000Z"
    assert elsewhere.astimezone(UTC).hour == 1
