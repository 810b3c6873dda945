"""What requests are answered, and how soon, while something the gateway depends on is away, and what comes after.

    python -m benchmarks.outages                # every dependency and fault; about ten minutes
    python -m benchmarks.outages --only redis   # one of them
    python -m benchmarks.outages --quick        # too short to be believed

One `gateway serve` between real servers, with a fault proxy before PostgreSQL, Redis, the source of signing keys and
Clerk's Backend API. Nothing is remembered for longer than a millisecond, so that every request meets the outage.
Figures are of one small client process beside the gateway: a machine with something else to do shows that instead.
"""

import argparse
import asyncio
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from tests.support.clerk_backend import SECRET_KEY, ClerkBackend
from tests.support.clerk_keys import jwk, jwks, mint_token
from tests.support.counted_postgres import CountedPostgres
from tests.support.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.support.gateway import merged, written_settings
from tests.support.jwks_server import JwksServer, serve_jwks
from tests.support.load import load_on
from tests.support.outage_stage import ASKING
from tests.support.postgres import PostgresPerWorker
from tests.support.redis_server import RedisServer
from tests.support.serve_process import ServeProcess, serve_process
from tests.support.upstream import recording_upstream
from tests.support.websockets import handshake, switching, then_echo
from tests.support.wire import bearer, request

STOCK = 20
"""API tokens that nobody has used, kept ready."""
AFTER_S = 5.0
RECOVERY_S = 60.0
_NETWORK = (Fault.LATENCY, Fault.BLACKHOLE, Fault.RESET, Fault.REFUSE, Fault.HALF, Fault.TRICKLE)
FAULTS = {
    "postgresql": _NETWORK,
    "redis": (*_NETWORK, Fault.LOADING),
    "jwks": _NETWORK,
    "clerk_api": _NETWORK,
}
LATENCY_S = 5.0
KINDS = ("known session", "new session", "known token", "unknown token", "what needs it")
Ask = Callable[[], Awaitable[int]]


@dataclass
class Answers:
    """Of one kind of request: how long each took in milliseconds, and how many had which status."""

    took_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def cell(self) -> str:
        """As a cell of the table: p50 / p99 / longest, and the statuses."""
        if not self.took_ms:
            return "-"
        ordered = sorted(self.took_ms)
        p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        times = f"{ordered[len(ordered) // 2]:.0f} / {p99:.0f} / {ordered[-1]:.0f}"
        return f"{times} ({', '.join(f'{count}×{status}' for status, count in sorted(self.statuses.items()))})"


@dataclass
class Outage:
    """What one was like.

    Attributes:
        answers: By kind of request.
        recovery_s: From its end to the first answer that it had made impossible.
        connections: Taken from its end on, for five seconds.
        questions: Statements, commands, fetches or questions that arrived meanwhile.
    """

    answers: dict[str, Answers]
    recovery_s: float = 0.0
    connections: int = 0
    questions: int = 0


@dataclass
class Place:
    """A gateway in a process of its own, and what stands around it."""

    gateway: ServeProcess
    proxies: dict[str, FaultProxy]
    database: CountedPostgres
    redis: RedisServer
    keys: JwksServer
    backend: ClerkBackend
    known: str = ""
    unknown: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def status(self, credential: str, target: str = "/x") -> int:
        """Ask; the status of the answer."""
        return (await self.gateway.ask(request(target, bearer(credential)))).status

    async def prepare(self) -> None:
        """Make API tokens, and use one of them, and a session."""
        await self.known_session()
        await self.stock()
        self.known = self.unknown.pop()
        await self.status(self.known)

    async def stock(self) -> None:
        """Make API tokens for `unknown_token`, as long as they can be made."""
        body = b'{"name": "Robot", "scopes": []}'
        while len(self.unknown) < STOCK:
            maker = bearer(mint_token(sub=f"user_2maker{next(self.numbers) // 100}"))  # nobody may have any number
            lines = (maker, "Content-Type: application/json")
            made = await self.gateway.ask(request("/users/current/api-tokens", *lines, method="POST", body=body))
            if made.status != 201:
                return
            self.unknown.append(str(made.json()["token"]))

    async def stock_until(self, until: float) -> None:
        """Keep the stock until then."""
        while time.monotonic() < until:
            await self.stock()
            await asyncio.sleep(0.05)

    def questions(self, dependency: str) -> int:
        """How much a dependency was asked so far, by its own count."""
        if dependency == "postgresql":
            return self.database.statements
        if dependency == "redis":
            stats = self.redis.ask(b"INFO stats").decode()
            return int(stats.partition("total_commands_processed:")[2].split("\r", 1)[0])
        return self.keys.fetches if dependency == "jwks" else len(self.backend.asked) + len(self.backend.machines.asked)

    # What is asked for, and what an outage makes impossible.

    async def known_session(self) -> int:
        """By a session token that was used before."""
        return await self.status(_same_token())

    async def new_session(self) -> int:
        """By a new session token of a known person."""
        return await self.status(mint_token(jti=f"n{next(self.numbers)}"))

    async def known_token(self) -> int:
        """By an API token that was used before."""
        return await self.status(self.known)

    async def unknown_token(self) -> int:
        """By one that the gateway has not seen, 0 when there is none; one that it could not ask for stays unseen."""
        if not self.unknown:
            return 0
        token = self.unknown.pop()
        status = await self.status(token)
        if status == 503:
            self.unknown.append(token)
        return status

    async def new_person(self) -> int:
        """By somebody who has no record yet."""
        return await self.status(mint_token(sub=f"user_2b{next(self.numbers)}"))

    async def rotated(self) -> int:
        """By a key that the source has, and the gateway has not seen yet."""
        return await self.status(mint_token(key="rotated", kid="ins_2new", jti=f"r{next(self.numbers)}"))

    async def machine(self) -> int:
        """By a machine token that only Clerk knows."""
        return await self.status(self.backend.machines.api_key(), "/machines/x")

    async def websocket(self) -> int:
        """By a websocket token of single use."""
        lines = (bearer(mint_token(sid=f"sess_2b{next(self.numbers)}")),)
        reply = await self.gateway.ask(request("/users/current", *lines))
        if reply.status != 200:
            return reply.status
        return (await self.gateway.ask(handshake(f"/ws/x?token={reply.json()['websocketToken']}"))).status


_minted: list[tuple[float, str]] = []


def _same_token() -> str:
    """One token for half a minute, then another: they live for one."""
    if not _minted or time.monotonic() - _minted[-1][0] > 30:
        _minted.append((time.monotonic(), mint_token()))
    return _minted[-1][1]


async def observe(place: Place, dependency: str, fault: Fault, seconds: float) -> Outage:
    """Let one thing be away for so long, with requests of each kind one after another, and see it come back."""
    victim = {
        "postgresql": place.new_person,
        "redis": place.websocket,
        "jwks": place.rotated,
        "clerk_api": place.machine,
    }[dependency]
    asks = (place.known_session, place.new_session, place.known_token, place.unknown_token, victim)
    kinds: dict[str, Ask] = dict(zip(KINDS, asks, strict=True))
    place.keys.body = jwks(jwk(), jwk("rotated", "ins_2new")) if dependency == "jwks" else place.keys.body
    outage, proxy = Outage({name: Answers() for name in kinds}), place.proxies[dependency]
    await place.stock()
    await proxy.set(fault, latency_s=LATENCY_S)
    until = time.monotonic() + seconds
    asking = (_ask_on(ask, outage.answers[name], until) for name, ask in kinds.items())
    stocking = () if dependency == "postgresql" else (place.stock_until(until),)
    await asyncio.gather(*asking, *stocking)
    connections, questions = proxy.connections, place.questions(dependency)
    await proxy.set(Fault.NONE)
    ended = time.monotonic()
    crowd = asyncio.gather(*(_ask_on(ask, Answers(), ended + AFTER_S) for ask in kinds.values()))
    while await victim() not in (200, 101) and time.monotonic() - ended < RECOVERY_S:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.02)
    outage.recovery_s = time.monotonic() - ended
    await crowd
    outage.connections, outage.questions = proxy.connections - connections, place.questions(dependency) - questions
    return outage


async def _ask_on(ask: Ask, answers: Answers, until: float) -> None:
    while time.monotonic() < until:
        began = time.perf_counter()
        status = await ask()
        if status:
            answers.took_ms.append((time.perf_counter() - began) * 1e3)
            answers.statuses[status] += 1
        await asyncio.sleep(0.02)


async def _place(stack: AsyncExitStack, folder: Path, database_url: str, redis: RedisServer) -> Place:
    database = await stack.enter_async_context(CountedPostgres(database_url).running())
    keys = await stack.enter_async_context(serve_jwks())
    backend = await stack.enter_async_context(ClerkBackend().running())
    upstream = await stack.enter_async_context(recording_upstream())
    answer = upstream.respond
    sockets = then_echo(switching())
    upstream.respond = lambda received, reader, writer: (
        sockets(received, reader, writer) if received.target.startswith(b"/ws/") else answer(received, reader, writer)
    )
    behind = {"postgresql": database.url, "redis": redis.url, "jwks": keys.url, "clerk_api": backend.url}
    proxies = {name: await stack.enter_async_context(fault_proxy(url)) for name, url in behind.items()}
    through = {name: proxies[name].through(url) for name, url in behind.items()}
    changes = {
        "redis": {"url": through["redis"]},
        "clerk": {"api_url": through["clerk_api"], "secret_key": SECRET_KEY},
        "websocket": {"single_use": True},
        "outbox": {"deliver": False},
    }
    settings = written_settings(through["postgresql"], through["jwks"], upstream.url, **merged(ASKING, changes))
    gateway = await stack.enter_async_context(serve_process(folder, settings))
    place = Place(gateway, proxies, database, redis, keys, backend)
    await place.prepare()
    return place


def heading() -> str:
    """The first lines of the table, in Markdown."""
    head = ("away", *KINDS, "back after", "connections, 5 s", "questions, 5 s")
    return f"| {' | '.join(head)} |\n| --- |{' --- |' * len(KINDS)} ---: | ---: | ---: |"


def row(name: str, outage: Outage) -> str:
    """An outage as a line of it."""
    cells = [outage.answers[kind].cell() for kind in KINDS]
    told = (f"{outage.recovery_s:.1f} s", str(outage.connections), str(outage.questions))
    return f"| {' | '.join((name, *cells, *told))} |"


async def _kill_redis(place: Place, seconds: float) -> str:
    """Kill it and start it again, twice, under load; counts by status."""
    port = place.gateway.port
    async with (
        load_on(port, "/x", lines=[bearer(mint_token())], keeping=8, dialling=0) as sessions,
        load_on(port, "/x", lines=[bearer(place.known)], keeping=8, dialling=0) as tokens,
    ):
        for change in (place.redis.stop, place.redis.start) * 2:
            await asyncio.sleep(seconds / 4)
            await asyncio.to_thread(change)
        await asyncio.sleep(seconds / 4)
    told = (
        f"{name}: {dict(load.counts)}, {len(load.lost)} cut"
        for name, load in (("sessions", sessions), ("API tokens", tokens))
    )
    return "Redis killed and started again under load: " + "; ".join(told)


async def _run(folder: Path, database_url: str, redis: RedisServer, seconds: float, only: list[str]) -> None:
    print(heading(), flush=True)
    async with AsyncExitStack() as stack:
        place = await _place(stack, folder, database_url, redis)
        for dependency in only:
            for fault in FAULTS[dependency]:
                if dependency == "jwks":  # a key that was seen is known: the next outage needs a gateway anew
                    place.keys.body = jwks()
                async with AsyncExitStack() as own:
                    at = place if dependency != "jwks" else await _place(own, folder, database_url, redis)
                    outage = await observe(at, dependency, fault, seconds)
                print(row(f"{dependency}, {fault}", outage), flush=True)
        if "redis" in only:
            print(await _kill_redis(place, seconds * 4))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a second for each outage")
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    wanted = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-outages-")))
        postgres, redis = PostgresPerWorker(folder / "postgres"), RedisServer(folder / "redis")
        stack.callback(postgres.stop)
        postgres.start()
        stack.callback(redis.stop)
        redis.start()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(folder, postgres.create(), redis, 1.5 if wanted.quick else 10.0, wanted.only))


if __name__ == "__main__":
    main()
