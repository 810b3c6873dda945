"""Everything a gateway writes, about few people, by many at once: `NIGHTLY_WRITERS_S` seconds of it.

Nobody waits in a circle, and nothing fails but what refuses for a reason. `tests/provisioning/test_lock_order.py` has
the circles that this met.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count as numbers
from typing import Any

import aiohttp
import pytest

from provisioning.administration import Administration
from provisioning.arrivals import Arrivals
from provisioning.audit import Origin
from provisioning.clerk_api import ClerkApi
from provisioning.clerk_events import parse_event
from provisioning.clerk_facts import ClerkFacts
from provisioning.database.pool import Database
from provisioning.erasure import erase_late
from provisioning.errors import ProvisioningError
from provisioning.first_sight import FirstSight
from provisioning.logins import Login, Logins
from provisioning.makers import Maker
from provisioning.new_tokens import FirstToken
from provisioning.records import Role, Standing, Subject
from provisioning.sign_outs import SignOuts
from provisioning.stripe_events import StripeEvent
from provisioning.stripe_facts import Snapshot, Stamp
from provisioning.stripe_subscriptions import StripeSubscriptions
from provisioning.subscriptions import Trials
from provisioning.token_upkeep import TokenReaper
from provisioning.token_uses import TokenUses
from tests.support.clerk_webhooks import envelope, membership, organization, user
from tests.support.tokens import RULES, SEALER, tokens_over

SECONDS = float(os.environ.get("NIGHTLY_WRITERS_S", "120"))
WRITERS, PEOPLE, PLACES, SESSIONS = 32, 5, 3, 40
ANEW_S = 1.5
"""Then others come: who is deleted does nothing more."""


class World:
    """What one gateway may be asked to write. Three of each stand for as many processes."""

    def __init__(self, database: Database, clerk_api: ClerkApi, seed: int) -> None:
        self.chance = random.Random(seed)
        self.began = time.monotonic()
        self.ids = numbers()
        self.database = database
        sight = FirstSight(
            database, first_token=FirstToken(SEALER, RULES), trials=Trials(14, "pro"), link_verified_email=True
        )
        self.arrivals = [Arrivals(sight, clerk_api) for _ in range(3)]
        self.logins = [Logins(database, {"login": 0}) for _ in range(3)]
        self.uses = [TokenUses(database, window_s=0.5) for _ in range(3)]
        self.facts = ClerkFacts(database, link_verified_email=True)
        self.administration, self.tokens = Administration(database), tokens_over(database)
        self.sign_outs = SignOuts(database, None, 60, 5, managed=True)
        self.stripe = StripeSubscriptions(database, live=False)
        self.standings: dict[str, Standing] = {}

    def person(self) -> str:
        return f"user_{self._generation}_{self.chance.randrange(PEOPLE)}"

    def place(self) -> str:
        return f"org_{self._generation}_{self.chance.randrange(PLACES)}"

    @property
    def _generation(self) -> int:
        return int((time.monotonic() - self.began) / ANEW_S)

    async def somebody(self) -> Standing:
        while not self.standings:
            await self.request()
        return self.chance.choice(list(self.standings.values()))

    async def request(self) -> None:
        person, role = self.person(), self.chance.choice(["admin", "member"])
        place = self.place() if self.chance.random() < 0.6 else None
        subject = Subject(person, place, "acme", role if place else "", issued_at=time.time())
        standing = await self.chance.choice(self.arrivals).standing(subject)
        if standing.user.deleted_at is None:
            self.standings = {person: standing} if len(self.standings) > PEOPLE else self.standings | {person: standing}

    async def webhook(self) -> None:
        now, chance = int(time.time() * 1000), self.chance
        person, place, role = self.person(), self.place(), chance.choice(["org:admin", "org:member"])
        kind, data = chance.choices(
            [
                ("user.updated", user(person, now, banned=chance.random() < 0.2, email=f"e{chance.randrange(4)}@x.de")),
                ("organizationMembership.updated", membership(person, place, now, role)),
                ("organizationMembership.deleted", membership(person, place, now - 1)),
                ("organization.updated", organization(place, now)),
                ("user.deleted", {"id": person, "deleted": True}),
                ("organization.deleted", {"id": place, "deleted": True}),
                ("session.ended", {"id": f"sess_{chance.randrange(SESSIONS)}", "user_id": person}),
            ],
            [25, 25, 20, 15, 7, 4, 4],
        )[0]
        event = parse_event(json.dumps(envelope(kind, data, at_ms=now)).encode(), 0.0)
        await self.facts.receive(f"msg_{next(self.ids)}", event)

    async def subscription(self) -> None:
        now, chance = datetime.now(UTC), self.chance
        one = await self.somebody()
        event = StripeEvent(
            "customer.subscription.updated",
            Stamp(now, f"evt_{next(self.ids)}"),
            subscription_id=f"sub_{chance.randrange(5)}",
            customer_id=f"cus_{chance.randrange(3)}",
            organization_id=one.organization.id,
            snapshot=Snapshot(chance.choice(["active", "past_due", "canceled"]), "pro", now),
        )
        await self.stripe.apply(event)

    async def token(self) -> None:
        one, chance = await self.somebody(), self.chance
        mine = await self.tokens.list_of(one.user.id, one.organization.id)
        maker = Maker(one.user.id, one.organization.id, None, Origin("user", one.user.id))
        if not mine or chance.random() < 0.3:
            await self.tokens.create(maker, "Token", ["reports:read"])
            return
        if chance.random() < 0.3:
            scopes = frozenset({"reports:read", "tokens:manage"})
            maker = Maker(one.user.id, one.organization.id, scopes, Origin("api_token", chance.choice(mine).id))
        changes: list[Any] = [self.tokens.rotate, self.tokens.revoke, self.tokens.reveal]
        await chance.choice(changes)(maker, chance.choice(mine).id)

    async def administer(self) -> None:
        one, other = await self.somebody(), await self.somebody()
        by, origin, service = self.chance.choice([None, one.user.id]), Origin("user", one.user.id), self.administration
        match self.chance.randrange(4):
            case 0:
                await service.set_role(other.user.id, self.chance.choice([Role.ADMIN, Role.USER]), origin, by=by)
            case 1:
                await service.disable(other.user.id, origin, by=by)
            case 2:
                await service.enable(other.user.id, origin, by=by)
            case _:
                await service.promote(other.user.id)

    async def sign_out(self) -> None:
        one, all_of_it = await self.somebody(), self.chance.random() < 0.5
        session = f"sess_{self.chance.randrange(SESSIONS)}"
        origin = Origin("user", one.user.id)
        await self.sign_outs.sign_out(one.user.id, origin, by=None, api_tokens=all_of_it, session_id=session)

    async def login(self) -> None:
        logins = self.chance.choice(self.logins)
        for _ in range(8):
            one = await self.somebody()
            session, origin = f"sess_{self.chance.randrange(SESSIONS)}{one.user.id}", Origin("user", one.user.id)
            logins.note(Login(session, one.user, one.organization.id, origin, time.time()))
        await logins.write()

    async def use(self) -> None:
        uses = self.chance.choice(self.uses)
        for token in await self.tokens.list_of((await self.somebody()).user.id):
            uses.note(token.id, "127.0.0.1")
        await uses.write()

    async def upkeep(self) -> None:
        if self.chance.random() < 0.5:
            await TokenReaper(self.database).reap()
        else:
            await erase_late(self.database)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with (
        Database(database_url, acquire_timeout=60, statement_timeout=60, pool_size=WRITERS) as database,
        aiohttp.ClientSession() as session,
    ):
        seed = int(time.time())
        print(f"seed {seed}")  # noqa: T201 - shown where it fails
        yield World(database, ClerkApi(session, "http://127.0.0.1:1", None), seed)


async def test_many_who_write_about_the_same_people_never_wait_in_a_circle(world: World) -> None:
    jobs = [world.request] * 4 + [world.webhook] * 6 + [world.token] * 3 + [world.administer] * 2
    jobs += [world.subscription, world.sign_out, world.login, world.use, world.upkeep]
    done, refused = Counter[str](), Counter[str]()

    async def write() -> None:
        while time.monotonic() < world.began + SECONDS:
            job = world.chance.choice(jobs)
            try:
                await job()
            except ProvisioningError as error:
                refused[error.reason] += 1
            else:
                done[job.__name__] += 1

    await asyncio.gather(*(write() for _ in range(WRITERS)))
    print(done, refused)  # noqa: T201 - likewise

    assert sum(world.database.failures.values()) == 0, world.database.failures
    assert len(done) == len(set(jobs))
