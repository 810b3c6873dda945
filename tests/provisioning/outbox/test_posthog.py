import uuid
from datetime import UTC, datetime
from typing import Any

import aiohttp

from provisioning.database.pool import Database
from provisioning.outbox.announcements import Announcements
from provisioning.outbox.posthog import NAMESPACE, Posthog, events_of
from provisioning.records import Organization, Role, User
from tests.support.outboxes import delivering, until_delivered, write
from tests.support.receivers import PROJECT_KEY, FakePosthog

AT = datetime(2026, 11, 23, 1, 2, 3, 456000, tzinfo=UTC)
ALICE = User("usr_alice", "user_alice", Role.USER, AT, AT, "alice@example.com", "Alice")
ACME = Organization("org_acme", "org_clerk", "Acme", AT, AT)
ALL = Announcements(frozenset({"slack", "posthog", "stripe", "profile"}))


def sent(key: str, payload: Any) -> list[dict[str, Any]]:
    return events_of(key, payload)


async def test_a_new_user_is_identified_before_anything_is_told_of_them(
    database: Database, session: aiohttp.ClientSession, posthog_fake: FakePosthog
) -> None:
    effects = [
        *Announcements(frozenset({"posthog"})).new_user(ALICE, ACME),
        *Announcements(frozenset({"posthog"})).login(ALICE, ACME.id, "sess_1", AT),
    ]
    await write(database, *effects)
    async with delivering(database, Posthog(session, posthog_fake.url, PROJECT_KEY, most=1)):
        await until_delivered(database, 2)
    identify, group, created, login = posthog_fake.events

    assert posthog_fake.names() == ["$identify", "$groupidentify", "user_created", "login"]
    assert identify["properties"]["$set"] == {
        "name": "Alice",
        "email": "alice@example.com",
        "clerk_id": "user_alice",
        "created_at": "2026-11-23T01:02:03.456Z",
    }
    assert {key: group["properties"][key] for key in ("$group_type", "$group_key", "$group_set")} == {
        "$group_type": "organization",
        "$group_key": "org_acme",
        "$group_set": {"name": "Acme"},
    }
    assert created["properties"]["$groups"] == login["properties"]["$groups"] == {"organization": "org_acme"}
    assert {event["distinct_id"] for event in posthog_fake.events} == {"usr_alice"}
    assert created["timestamp"] == "2026-11-23T01:02:03.456Z"
    assert all(event["properties"]["$geoip_disable"] for event in posthog_fake.events)


def test_an_event_sent_twice_is_the_same_to_the_byte() -> None:
    (effect,) = Announcements(frozenset({"posthog"})).new_user(ALICE, ACME)

    first, second = sent(effect.key, effect.payload), sent(effect.key, effect.payload)

    assert first == second
    assert len({event["uuid"] for event in first}) == 3
    assert first[2]["uuid"] == str(uuid.uuid5(NAMESPACE, "user_created:usr_alice/user_created"))


def test_what_a_route_counts_cannot_pose_as_the_organization_or_as_us() -> None:
    (effect,) = ALL.usage(
        "report_viewed", "usr_1", "org_1", AT, count=3, properties={"$groups": {"organization": "org_2"}, "$lib": "x"}
    )
    (event,) = sent(effect.key, effect.payload)

    assert event["properties"]["$groups"] == {"organization": "org_1"}
    assert (event["properties"]["$lib"], event["properties"]["count"]) == ("actorgate", 3)


async def test_many_effects_travel_in_one_batch(
    database: Database, session: aiohttp.ClientSession, posthog_fake: FakePosthog
) -> None:
    await write(database, *(effect for _ in range(30) for effect in ALL.usage("viewed", "usr_1", "org_1", AT)))
    async with delivering(database, Posthog(session, f"{posthog_fake.url}/", PROJECT_KEY)):
        await until_delivered(database, 30)

    assert len(posthog_fake.asked) == 1
    assert len(posthog_fake.events) == 30
