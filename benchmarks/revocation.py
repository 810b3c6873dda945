"""How soon a revoked API token counts nowhere any more: three gateways behind HAProxy, on one PostgreSQL and one Redis.

    python -m benchmarks.revocation                          100 rounds, then 20 with Redis blackholed; twelve minutes
    python -m benchmarks.revocation --rounds 5 --silent 1    a look

In each round a new token opens websockets through the balancer, a fifth of them by websocket tokens it had minted, and
sends a stream of requests. It is revoked through the API; what counts is the time from the 204 until the last answer
that accepted it, and until the last websocket was told 4401. Both ends are on this machine's cores, as is the client,
so figures err to the high side.
"""

import argparse
import asyncio
import math
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import uvloop

from benchmarks.checks import Wrong
from benchmarks.peers import Client, Echo
from benchmarks.processes import allow_many_files
from tests.support.fleet import Door, Fleet, fleet_under_test
from tests.support.gateway import mint_token
from tests.support.postgres import PostgresPerWorker
from tests.support.redis_server import RedisServer
from tests.support.wire import bearer, connected, request

TOKENS = "/users/current/api-tokens"
CLOSED = 4401
BOUND_S, SILENT_BOUND_S = 1.0, 11.0
"""What is promised; without Redis: six seconds to notice, and `cache.degraded_ttl`."""
QUIET_S = 1.0
"""For so long a round goes on after the last accepted answer: what is refused shall stay refused."""
DEADLINE_S = 60.0
_OPENING_AT_ONCE, _LANES = 32, 16
_MINTED_EVERY = 5
_PARTS = (0.5, 0.9, 0.99)


class Socket(Client):
    """A websocket that says nothing and waits for its close frame.

    Attributes:
        code: Of that frame; 0: none came yet; -1: the connection ended without one.
        closed_at: When either happened; loop time.
    """

    def __init__(self, token: str) -> None:
        super().__init__(token)
        if not token.startswith("agt_"):  # what the gateway mints comes as in a browser, which cannot set fields
            field_line = f"Authorization: Bearer {token}\r\n".encode()
            self._request = self._request.replace(field_line, b"").replace(
                b"/socket", b"/socket?token=" + token.encode()
            )
        self._frames = b""
        self.code = 0
        self.closed_at = math.inf

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            whole = self._head + data
            super().data_received(data)
            if not self.opened.done():
                return
            data = whole.partition(b"\r\n\r\n")[2]  # a close frame may come with the 101
        self._frames += data
        if len(self._frames) >= 4 and self.code == 0:
            assert self._frames[0] == 0x88, "nobody sends anything but a close frame"
            self._ended(int.from_bytes(self._frames[2:4], "big"))
            if self.transport is not None:  # answer it, as clients do, and let the gateway hang up
                self.transport.write(b"\x88\x82\0\0\0\0" + self._frames[2:4])

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._ended(-1)

    def _ended(self, code: int) -> None:
        if self.code == 0:
            self.code, self.closed_at = code, asyncio.get_running_loop().time()


@dataclass
class Stream:
    """Requests with one token at a steady rate, over kept connections to the balancer.

    Attributes:
        answers: When each answer was there (loop time), and its status; 0: the connection ended without one.
    """

    port: int
    token: str
    rate: float
    answers: list[tuple[float, int]] = field(default_factory=list)

    async def lane(self, number: int) -> None:
        """Send every `_LANES`th of them."""
        loop, raw = asyncio.get_running_loop(), request("/x", bearer(self.token))
        due = loop.time() + number / self.rate
        while True:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                async with connected(self.port) as wire:
                    while True:
                        await asyncio.sleep(max(0.0, due - loop.time()))
                        due = max(due + _LANES / self.rate, loop.time())
                        self.answers.append((loop.time(), (await wire.ask(raw)).status))
            self.answers.append((loop.time(), 0))

    def last_accepted(self) -> float:
        """When the last answer came that accepted the token."""
        return max((at for at, status in self.answers if status == 200), default=-math.inf)


@asynccontextmanager
async def streaming(port: int, token: str, rate: float) -> AsyncIterator[Stream]:
    """Send requests while the block runs."""
    stream = Stream(port, token, rate)
    lanes = [asyncio.create_task(stream.lane(number)) for number in range(_LANES)]
    try:
        yield stream
    finally:
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Lag:
    """One round; seconds since the 204.

    Attributes:
        revoking_s: How long the DELETE took.
        accepted_s: Until the last answer that accepted the token; 0: none came after the 204.
        closed_s: Until the last websocket was told.
        statuses: Of the answers after the 204.
        codes: Of the websockets' ends.
        spread: How many websockets each replica held.
    """

    revoking_s: float
    accepted_s: float
    closed_s: float
    statuses: Counter[int]
    codes: Counter[int]
    spread: tuple[int, ...]


async def opened(port: int, tokens: Sequence[str], count: int) -> list[Socket]:
    """Open websockets through the balancer, some at a time.

    Raises:
        Wrong: One was refused.
    """
    loop, limit = asyncio.get_running_loop(), asyncio.Semaphore(_OPENING_AT_ONCE)
    sockets = [Socket(tokens[number % len(tokens)]) for number in range(count)]

    async def one(socket: Socket) -> None:
        async with limit:
            await loop.create_connection(socket.itself, "127.0.0.1", port)
            if not await socket.opened:
                raise Wrong("a websocket was refused")

    await asyncio.gather(*(one(socket) for socket in sockets))
    return sockets


async def asked(door: Door, session: str, method: str, target: str, body: object = None) -> tuple[int, Any]:
    """Call an own endpoint; gives status and document."""
    content = b"" if body is None else orjson.dumps(body)
    typed = () if body is None else ("Content-Type: application/json",)
    reply = await door.ask(request(target, bearer(session), *typed, method=method, body=content))
    return reply.status, orjson.loads(reply.body) if reply.body else None


async def measured(fleet: Fleet, person: str, sockets: int, rate: float, redis: RedisServer | None = None) -> Lag:
    """Make a token, use it everywhere, revoke it, and wait until it counts nowhere.

    Args:
        fleet: With the settings of `running`.
        person: A Clerk id nobody had yet.
        sockets: How many websockets.
        rate: Requests a second.
        redis: Blackholed from just before the revocation until the round is over; None: it answers.

    Raises:
        Wrong: The gateway did something else, or took longer than DEADLINE_S.
    """
    session = mint_token(sub=person, sid=f"sess_{person}", exp=int(time.time()) + 600)
    status, made = await asked(fleet.door, session, "POST", TOKENS, {"name": "Robot", "scopes": ["tokens:mint"]})
    minted, document = await asked(fleet.door, made["token"], "POST", "/users/current/websocket-token")
    if (status, minted) != (201, 201):
        raise Wrong(f"the tokens were answered with {status} and {minted}")
    tokens = [made["token"]] * (_MINTED_EVERY - 1) + [document["token"]]
    opened_now = await opened(fleet.door.port, tokens, sockets)
    try:
        spread = tuple(int(count) for count in await fleet.metric("gateway_websockets_open"))
        async with streaming(fleet.door.port, made["token"], rate) as stream:
            await asyncio.sleep(max(0.3, 3 * _LANES / rate))  # every replica believes in it
            if redis is not None:
                redis.freeze()
            return await _revoked(fleet.door, session, made["id"], stream, opened_now, spread)
    finally:
        if redis is not None:
            redis.thaw()
        for socket in opened_now:
            socket.close()


async def _revoked(
    door: Door, session: str, token_id: str, stream: Stream, sockets: Sequence[Socket], spread: tuple[int, ...]
) -> Lag:
    loop = asyncio.get_running_loop()
    if {status for _, status in stream.answers} != {200} or any(socket.code for socket in sockets):
        raise Wrong("the token was not good before it was revoked")
    asked_at = loop.time()
    status, _ = await asked(door, session, "DELETE", f"{TOKENS}/{token_id}")
    revoked_at = loop.time()
    if status != 204:
        raise Wrong(f"revoking was answered with {status}")
    while not all(socket.code for socket in sockets) or loop.time() - stream.last_accepted() < QUIET_S:
        if loop.time() - revoked_at > DEADLINE_S:
            left = sum(not socket.code for socket in sockets)
            raise Wrong(f"{left} websockets open, {loop.time() - stream.last_accepted():.1f} s after the last answer")
        await asyncio.sleep(0.05)
    return Lag(
        revoked_at - asked_at,
        max(0.0, stream.last_accepted() - revoked_at),
        max(0.0, max((socket.closed_at for socket in sockets), default=0.0) - revoked_at),
        Counter(status for at, status in stream.answers if at > revoked_at),
        Counter(socket.code for socket in sockets),
        spread,
    )


@asynccontextmanager
async def running(folder: Path, database_url: str, redis_url: str, **changes: Any) -> AsyncIterator[Fleet]:
    """Run a fleet whose `/socket` takes websockets; `changes` go over its settings."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=1024)
    echo = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    accepted = ["api_token", "websocket_token"]
    settings: dict[str, Any] = {
        "upstreams": {"echo": {"url": echo, "max_connections": 4000}},
        "routes": [
            {"path": "/socket", "auth": "required", "accept": accepted, "upstream": "echo"},
            {"path": "/**", "auth": "required", "upstream": "app"},
        ],
    }
    try:
        async with fleet_under_test(folder, database_url, redis_url, balanced=True, **settings, **changes) as fleet:
            yield fleet
    finally:
        server.close()


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that this part of all do not exceed."""
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def told(name: str, lags: Sequence[Lag]) -> str:
    """Write what rounds showed; milliseconds."""
    lines = [f"{name}, {len(lags)} rounds, ms"]
    columns = {
        "DELETE answered": [lag.revoking_s for lag in lags],
        "last accepted": [lag.accepted_s for lag in lags],
        "last socket closed": [lag.closed_s for lag in lags],
    }
    for title, values in columns.items():
        parts = " ".join(f"p{part:.0%} {percentile(values, part) * 1e3:8.0f}".replace("%", "") for part in _PARTS)
        lines.append(f"  {title:<20}{parts}  max {max(values) * 1e3:8.0f}")
    statuses: Counter[int] = sum((lag.statuses for lag in lags), Counter())
    codes: Counter[int] = sum((lag.codes for lag in lags), Counter())
    lines.append(
        f"  statuses after the 204: {dict(sorted(statuses.items()))}; close codes: {dict(sorted(codes.items()))}"
    )
    return "\n".join(lines)


def within(lags: Sequence[Lag], bound_s: float) -> bool:
    """Whether 99 of 100 rounds ended in time, every websocket was told 4401, and every answer was a plain one."""
    ends = [max(lag.accepted_s, lag.closed_s) for lag in lags]
    plain = all(set(lag.statuses) <= {200, 401} and set(lag.codes) <= {CLOSED} for lag in lags)
    return plain and percentile(ends, 0.99) <= bound_s


async def _rounds(chosen: argparse.Namespace, folder: Path, database_url: str, redis: RedisServer) -> bool:
    """Run both kinds; gives whether all kept their bounds."""
    good = True
    async with running(folder, database_url, redis.url) as fleet:
        for name, count, blackholed, bound_s in (
            ("Redis answers", chosen.rounds, None, BOUND_S),
            ("Redis blackholed", chosen.silent, redis, SILENT_BOUND_S),
        ):
            lags: list[Lag] = []
            for number in range(count):
                await fleet.until_whole()
                person = f"user_{'silent' if blackholed else 'plain'}{number}"
                lags.append(lag := await measured(fleet, person, chosen.sockets, chosen.rate, blackholed))
                fleet.upstream.received.clear()
                figures = f"{lag.accepted_s * 1e3:.0f} ms accepted, {lag.closed_s * 1e3:.0f} ms open, {lag.spread}"
                print(f"{name} {number + 1}/{count}: {figures}", flush=True)
            if lags:
                kept = within(lags, bound_s)
                print(f"{told(name, lags)}\n  bound {bound_s:.0f} s: {'kept' if kept else 'NOT KEPT'}", flush=True)
                good = good and kept
        heard = sum(await fleet.metric("gateway_revocation_lag_seconds_count"))
        late = heard - sum(await fleet.metric("gateway_revocation_lag_seconds_bucket", le="1.0"))
        print(f"the gateways say: {heard:.0f} changes heard of, {late:.0f} of them later than 1 s")
    return good


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--silent", type=int, default=20, help="rounds with Redis blackholed")
    parser.add_argument("--sockets", type=int, default=500)
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    chosen = parser.parse_args()
    allow_many_files()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-revocation-")))
        postgres, redis = PostgresPerWorker(folder / "postgres"), RedisServer(folder / "redis")
        stack.callback(postgres.stop)
        postgres.start()
        stack.callback(redis.stop)
        redis.start()
        if not uvloop.run(_rounds(chosen, folder, postgres.create(), redis)):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
