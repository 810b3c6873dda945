"""Three gateways whose PostgreSQL and Redis fail in any way at any moment, while they are reloaded.

Whoever is known is served all through. Nobody gets in who may not, nobody is told that a good credential is bad, and
nothing that needs the records is answered with anything but its result or 503.
"""

import asyncio
import os
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.support.api_tokens import PATH, call, made_token
from tests.support.clerk_webhooks import SECRET, Delivery, envelope, membership, session
from tests.support.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.support.fleet import Fleet, Replica, fleet_under_test
from tests.support.gateway import ROUTES, mint_token
from tests.support.websockets import echo_server
from tests.support.wire import Reply, bearer, connected, request

SECONDS = float(os.environ.get("NIGHTLY_FAULTS_S", "300"))
FAULTS = [one for one in Fault if one not in (Fault.NONE, Fault.LOADING, Fault.INSTEAD)]
BOUND_S = 3.0 + 2.0 + 1.5
"""What is revoked is refused everywhere: out of touch is noticed, beliefs end, and the machine is busy."""
SETTINGS: dict[str, Any] = {
    "cache": {"near_ttl": "2s", "degraded_ttl": "500ms", "stale_if_error": "1h"},
    "clerk": {"webhook_secrets": [SECRET]},
    "tokens": {"scopes": [], "per_user": 10_000},
    "routes": [{"path": "/sockets/**", "auth": "required", "upstream": "echo"}, *ROUTES],
}
SERVED, SERVED_OR_LATER, REFUSED_OR_LATER = (200,), (200, 201, 204, 503), (401, 503)


def session_of(person: str, **claims: Any) -> str:
    return mint_token(sub=person, sid=f"sess_{person}", exp=int(time.time()) + 7200, **claims)


class Trouble:
    """What goes on, what came of it, and when it is over.

    Attributes:
        answers: Counts by who asked and status.
        wrong: Answers that should not have been, with what was the matter then.
    """

    def __init__(self, fleet: Fleet, proxies: dict[str, FaultProxy], seed: int) -> None:
        self.fleet, self.proxies = fleet, proxies
        self.chance = random.Random(seed)
        self.ends = time.monotonic() + SECONDS
        self.answers, self.wrong = Counter[tuple[str, int]](), Counter[tuple[object, ...]]()
        self.matter = "nothing yet"

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.ends

    def replica(self) -> Replica:
        return self.chance.choice(self.fleet.replicas)

    def note(self, who: str, reply: Reply, right: Collection[int]) -> Reply:
        self.answers[who, reply.status] += 1
        if reply.status not in right:
            self.wrong[who, reply.status, self.matter] += 1
        return reply

    async def ask(self, who: str, right: Collection[int], *lines: str, method: str = "GET", body: bytes = b"") -> None:
        """Ask again and again, on connections that are kept for a while."""
        while self.goes_on:
            async with connected(self.replica().port) as wire:
                for _ in range(self.chance.randrange(1, 30)):
                    reply = self.note(who, await wire.ask(request("/x", *lines, method=method, body=body)), right)
                    if reply.get("connection") == "close":
                        break
                    await asyncio.sleep(self.chance.random() * 0.02)

    async def newcomers(self) -> None:
        for number in range(1_000_000):
            if not self.goes_on:
                break
            reply = await self.replica().get("/x", bearer(session_of(f"user_2new{number}")))
            self.note("newcomer", reply, SERVED_OR_LATER)
            await asyncio.sleep(0.1)

    async def tokens(self, credential: str) -> None:
        """Make one, use it, revoke it: it is refused here at once and within the bound everywhere."""
        while self.goes_on:
            replica = self.replica()
            made = await call(replica, credential, "POST", PATH, {"name": "Robot", "scopes": []})
            if self.note("create", made, SERVED_OR_LATER).status == 201:
                line = bearer(made.json()["token"])
                self.note("fresh token", await self.replica().get("/x", line), SERVED_OR_LATER)
                ended = await call(replica, credential, "DELETE", f"{PATH}/{made.json()['id']}")
                if self.note("delete", ended, SERVED_OR_LATER).status == 204:
                    self.note("revoked token", await replica.get("/x", line), REFUSED_OR_LATER)
                    await asyncio.sleep(BOUND_S)
                    for one in self.fleet.replicas:
                        self.note("token revoked before", await one.get("/x", line), REFUSED_OR_LATER)
            await asyncio.sleep(0.2)

    async def webhooks(self) -> None:
        while self.goes_on:
            other, now = f"user_2other{self.chance.randrange(50)}", int(time.time() * 1000)
            events = [
                envelope("organizationMembership.created", membership(other, "org_2x", now)),
                session("session.ended", f"sess_2{secrets.token_hex(4)}", other),
            ]
            reply = await Delivery(self.chance.choice(events)).send(self.replica())
            self.note("webhook", reply, SERVED_OR_LATER)
            await asyncio.sleep(0.05)

    async def sockets(self, credential: str) -> None:
        fields = {"Authorization": f"Bearer {credential}"}
        while self.goes_on:
            url = f"ws://127.0.0.1:{self.replica().port}/sockets/a"
            async with connect(url, additional_headers=fields, proxy=None) as client:
                for _ in range(self.chance.randrange(3, 30)):
                    said = "x" * self.chance.randrange(1, 5000)
                    await client.send(said)
                    assert await client.recv() == said
                    await asyncio.sleep(self.chance.random() * 0.1)

    async def faults(self) -> None:
        names = list(self.proxies)
        while time.monotonic() < self.ends - 10:
            await asyncio.sleep(self.chance.uniform(0.5, 3))
            matter = {name: self.chance.choice(FAULTS) for name in self.chance.choice([names[:1], names[1:], names])}
            self.matter = str(matter)
            for name, fault in matter.items():
                await self.proxies[name].set(fault, latency_s=self.chance.choice([0.05, 0.2, 1.0]))
            await asyncio.sleep(self.chance.uniform(0.3, 5))
            for name in matter:
                await self.proxies[name].set(Fault.NONE)

    async def reloads(self) -> None:
        while self.goes_on:
            await asyncio.sleep(self.chance.uniform(2, 6))
            self.replica().process.process.send_signal(signal.SIGHUP)


@pytest.fixture
async def trouble(tmp_path: Path, database_url: str, redis_url: str) -> AsyncIterator[Trouble]:
    async with AsyncExitStack() as stack:
        postgresql = await stack.enter_async_context(fault_proxy(database_url))
        redis = await stack.enter_async_context(fault_proxy(redis_url))
        echo = await stack.enter_async_context(echo_server())
        settings = SETTINGS | {"upstreams": {"echo": {"url": echo}}}
        urls = postgresql.through(database_url), redis.through(redis_url)
        fleet = await stack.enter_async_context(fleet_under_test(tmp_path, *urls, **settings))
        seed = int(time.time())
        print(f"seed {seed}")  # noqa: T201 - shown where it fails
        yield Trouble(fleet, {"postgresql": postgresql, "redis": redis}, seed)


async def test_who_is_known_is_served_whatever_fails_and_nobody_else_gets_in(trouble: Trouble) -> None:
    sessions = [session_of(f"user_2known{number}") for number in range(10)]
    tokens = [(await made_token(trouble.fleet.replicas[0], sessions[0]))["token"] for _ in range(6)]
    for credential in [*sessions, *tokens]:
        assert await trouble.fleet.each("/x", bearer(credential)) == [200, 200, 200]
    forged = mint_token(key="forger", sub="user_2known0")

    await asyncio.gather(
        *(trouble.ask("session", SERVED, bearer(one)) for one in sessions[:6]),
        *(trouble.ask("session", SERVED, bearer(one), method="POST", body=b"z" * 3000) for one in sessions[6:8]),
        *(trouble.ask("token", SERVED, bearer(one)) for one in tokens),
        trouble.ask("forger", (401,), bearer(forged)),
        trouble.ask("nobody", (401,)),
        *(trouble.sockets(one) for one in sessions[:2]),
        *(trouble.tokens(one) for one in sessions[8:]),
        trouble.newcomers(),
        trouble.webhooks(),
        trouble.faults(),
        trouble.reloads(),
    )
    errors = [
        line for one in trouble.fleet.replicas for line in one.process.lines if line["level"] in ("error", "critical")
    ]
    print(trouble.answers)  # noqa: T201 - likewise

    assert not trouble.wrong
    assert errors == []
    for one in sessions:
        assert await trouble.fleet.each("/x", bearer(one)) == [200, 200, 200]
