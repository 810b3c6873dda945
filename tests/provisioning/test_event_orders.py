"""Webhooks before, after, twice, out of order and in parallel with first requests: the same end, whatever comes when.

A history of one person and one organization is made up as Clerk could have lived it. Each event of it, and requests
with tokens of their moment, arrive in any order, in any groups at once. Our records say in the end what Clerk says.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count as numbers
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioning.arrivals import Arrivals
from provisioning.clerk_api import ClerkApi
from provisioning.clerk_events import parse_event
from provisioning.clerk_facts import ClerkFacts
from provisioning.database.pool import Database
from provisioning.errors import MembershipEnded
from provisioning.first_sight import FirstSight
from provisioning.new_tokens import FirstToken
from provisioning.records import Standing, Subject
from tests.support.clerk_webhooks import envelope, membership, organization, user
from tests.support.tokens import RULES, SEALER, events

START_S = 1_700_000_000
STEP_S = 10
STEPS = ["join", "leave", "join", "leave", "promote", "demote", "rename", "ban", "unban", "rename_organization"]
_numbers = numbers()


@dataclass(frozen=True)
class World:
    """What is so at Clerk at one moment."""

    person: str
    place: str
    name: str = "N0"
    banned: bool = False
    role: str | None = None
    place_name: str = "P0"
    place_gone: bool = False
    person_gone: bool = False


@dataclass
class History:
    """A life, the events it sent, and requests its tokens would make.

    Attributes:
        events: (kind, data, milliseconds).
    """

    world: World
    events: list[tuple[str, Any, int]] = field(default_factory=list)
    requests: list[Subject] = field(default_factory=list)

    def live(self, steps: Sequence[str], *, dies: bool) -> None:
        self.world = replace(self.world, role=None)
        now_s = START_S
        for number, step in enumerate(["begin", *steps, *(["die"] if dies else [])]):
            now_s = START_S + number * STEP_S
            self._take(step, number, now_s * 1000)
            if not self.world.person_gone:
                self._request(now_s + STEP_S / 2)

    def _take(self, step: str, number: int, at_ms: int) -> None:
        before, (person, place) = self.world, (self.world.person, self.world.place)
        match step:
            case "begin":
                self._told("user.created", at_ms)
                self.events.append(("organization.created", organization(place, at_ms, name="P0"), at_ms))
            case "rename" | "ban" | "unban":
                changes: dict[str, Any] = {"name": f"N{number}"} if step == "rename" else {"banned": step == "ban"}
                self.world = replace(before, **changes)
                self._told("user.updated", at_ms)
            case "join" | "promote" | "demote" if not before.place_gone:
                if (before.role is None) == (step == "join"):
                    self.world = replace(before, role="admin" if step == "promote" else "member")
                    kind = "organizationMembership." + ("created" if step == "join" else "updated")
                    self.events.append((kind, membership(person, place, at_ms, f"org:{self.world.role}"), at_ms))
            case "leave" if before.role is not None:
                self.world = replace(before, role=None)
                data = membership(person, place, at_ms - 1, f"org:{before.role}")
                self.events.append(("organizationMembership.deleted", data, at_ms))
            case "rename_organization" if not before.place_gone:
                self.world = replace(before, place_name=f"P{number}")
                data = organization(place, at_ms, name=self.world.place_name)
                self.events.append(("organization.updated", data, at_ms))
            case "delete_organization" if not before.place_gone:
                self.world = replace(before, place_gone=True, role=None)
                self.events.append(("organization.deleted", {"id": place, "deleted": True}, at_ms))
            case "die":
                self.world = replace(before, person_gone=True, role=None)
                self.events.append(("user.deleted", {"id": person, "deleted": True}, at_ms))
            case _:
                pass  # Clerk would not take it now

    def _told(self, kind: str, at_ms: int) -> None:
        names = {"first_name": self.world.name, "last_name": None, "email": None}
        self.events.append((kind, user(self.world.person, at_ms, banned=self.world.banned, **names), at_ms))

    def _request(self, at_s: float) -> None:
        """Make requests with a token of this moment: where the person is, or alone."""
        world = self.world
        if world.role is not None:
            self.requests.append(Subject(world.person, world.place, "acme", world.role, issued_at=at_s))
        else:
            self.requests.append(Subject(world.person, issued_at=at_s))


class Gateway:
    """What a gateway does with events and tokens, without its sockets."""

    def __init__(self, database: Database, clerk_api: ClerkApi) -> None:
        self.database = database
        self.facts = ClerkFacts(database)
        # Several of them stand for several processes, which share nothing.
        first_token = FirstToken(SEALER, RULES)
        self.arrivals = [Arrivals(FirstSight(database, first_token=first_token), clerk_api) for _ in range(2)]

    async def event(self, world: World, number: int, kind: str, data: Any, at_ms: int) -> None:
        event = parse_event(json.dumps(envelope(kind, data, at_ms=at_ms)).encode(), 0.0)
        await self.facts.receive(f"{world.person}-{number}", event)

    async def request(self, number: int, subject: Subject) -> Standing | None:
        with suppress(MembershipEnded):
            standing = await self.arrivals[number % 2].standing(subject)
            return standing if standing.user.deleted_at is None else None
        return None


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    async with (
        Database(database_url, acquire_timeout=60, statement_timeout=60) as database,
        aiohttp.ClientSession() as session,
    ):
        yield Gateway(database, ClerkApi(session, "http://127.0.0.1:1", None))


async def state(database: Database, world: World) -> dict[str, Any]:
    async with database.connection() as connection:
        person = await connection.fetchrow("SELECT * FROM users WHERE clerk_id = $1", world.person)
        place = await connection.fetchrow("SELECT * FROM organizations WHERE clerk_id = $1", world.place)
        assert person is not None
        assert place is not None
        role = await connection.fetchval(
            "SELECT role FROM memberships WHERE user_id = $1 AND organization_id = $2", person["id"], place["id"]
        )
        welcomes = await connection.fetchval(
            "SELECT count(*) FROM audit_events WHERE action = 'user.created' AND $1 = ANY (targets)", person["id"]
        )
        chains = [row["chain"] for row in await connection.fetch("SELECT chain FROM audit_chains")]
        tokens = await connection.fetchval("SELECT count(*) FROM api_tokens WHERE user_id = $1", person["id"])
        left = await connection.fetchval("SELECT count(*) FROM memberships WHERE user_id = $1", person["id"])
    for chain in chains[-3:]:
        await events(database, chain)  # whole
    return {
        "gone": person["deleted_at"] is not None,
        "name": person["name"],
        "banned": person["banned_at"] is not None,
        "role": role,
        "place": place["name"] if place["deleted_at"] is None else None,
        "place gone": place["deleted_at"] is not None,
        "welcomes": (welcomes, tokens),
        "memberships of the dead": left if person["deleted_at"] is not None else 0,
    }


def wanted(world: World, answered: bool) -> dict[str, Any]:
    return {
        "gone": world.person_gone,
        "name": None if world.person_gone else world.name,
        "banned": world.banned and not world.person_gone,
        "role": world.role,
        "place": world.place_name if not world.place_gone else None,
        "place gone": world.place_gone,
        "welcomes": (1, 1) if answered else (0, 0),
        "memberships of the dead": 0,
    }


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_the_same_end_whatever_comes_when(gateway: Gateway, data: st.DataObject) -> None:
    number = next(_numbers)
    history = History(World(f"user_{number}", f"org_{number}"))
    steps = data.draw(st.lists(st.sampled_from(STEPS), max_size=7))
    ends = data.draw(st.sampled_from([[], [], ["delete_organization"]]))
    history.live([*steps, *ends], dies=data.draw(st.sampled_from([False, False, True])))
    requests = data.draw(st.lists(st.sampled_from(history.requests), max_size=4, unique=True))
    things: list[Any] = [*enumerate(history.events), *requests]
    twice = data.draw(st.lists(st.sampled_from(things), max_size=4))
    order = data.draw(st.permutations([*things, *twice]))
    together = data.draw(st.lists(st.booleans(), min_size=len(order), max_size=len(order)))

    answered = False
    group: list[Any] = []
    for place, (thing, joined) in enumerate(zip(order, together, strict=True)):
        if isinstance(thing, Subject):
            group.append(gateway.request(place, thing))
        else:
            group.append(gateway.event(history.world, thing[0], *thing[1]))
        if not joined or place == len(order) - 1:
            results = await asyncio.gather(*group)
            answered = answered or any(isinstance(result, Standing) for result in results)
            group = []

    assert await state(gateway.database, history.world) == wanted(history.world, answered)


async def test_x05_a_hundred_first_requests_and_webhooks_at_once_make_one_person(gateway: Gateway) -> None:
    history = History(World("user_x05", "org_x05"))
    history.live(["join", "promote"], dies=False)
    requests = [gateway.request(number, history.requests[number % 3]) for number in range(100)]
    deliveries = [
        gateway.event(history.world, number, *event) for number, event in list(enumerate(history.events)) * 10
    ]

    results = await asyncio.gather(*requests, *deliveries)

    people = {result.user.id for result in results if isinstance(result, Standing)}
    assert len(people) == 1
    assert await state(gateway.database, history.world) == wanted(history.world, answered=True)
