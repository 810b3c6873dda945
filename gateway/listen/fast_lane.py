"""The fast lane: every connection starts here, and plain proxied requests never leave it.

A plain request is one whose head is of the strict shape `edge/head.py` reads, for a route, without chunks, an upgrade
or an expectation. It goes through the pipeline by callbacks: no task (but for a dial, or a caller who is not known
yet), no future, no request object. Anything else is handed over, socket and bytes, to the aiohttp lane, before this
lane has judged or answered any of it; in doubt it is handed over as well, so that there is one judge of the unusual.
Measured in docs/performance.md.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from config.model import Limits
from gateway.actors.actor import Actor
from gateway.edge.recent_heads import RecentHeads
from gateway.listen.aiohttp_connection import SWEEP_S, LaneServer
from gateway.listen.fast_connection import FastConnection
from gateway.listen.refusals import Refusals
from gateway.pipeline import Pipeline

HEADS_AGE_S = 30.0
"""Seconds of one generation of remembered field sections."""
WAITING_CAP = 64 * 1024
"""Bytes of a body, or of requests behind the one under way, before a client is no longer read; a head may be longer."""


class FastLane:
    """What the connections of this lane share: the rooms, the limits, and the list of who is connected."""

    def __init__(
        self, pipeline: Pipeline, refusals: Refusals, limits: Limits, scheme: str, unusual: LaneServer
    ) -> None:
        """Prepare the lane.

        Args:
            pipeline: The way.
            refusals: Answers for what is refused.
            limits: Of one connection.
            scheme: `http` or `https`, of the listener.
            unusual: Makes the connections of the aiohttp lane.
        """
        self.pipeline = pipeline
        self.refusals = refusals
        self.limits = limits
        self.waiting_cap = max(WAITING_CAP, limits.head_bytes)
        self.scheme = scheme
        self.unusual = unusual
        pipeline.rooms.live.watch(self)
        self.metrics = pipeline.rooms.metrics
        self.heads = RecentHeads()
        self.loop = asyncio.get_running_loop()
        self.connections: set[FastConnection] = set()
        self.draining = False
        self.empty = asyncio.Event()
        self._heads_since = self.loop.time()
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    def adopt(self, pipeline: Pipeline, refusals: Refusals, limits: Limits) -> None:
        """Serve every request from now on with these; those under way keep what they began with."""
        self.pipeline, self.refusals, self.limits = pipeline, refusals, limits
        self.waiting_cap = max(WAITING_CAP, limits.head_bytes)
        self.heads = RecentHeads()  # what rooms noted in there is of the settings before

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol of one accepted connection."""
        return cast(asyncio.Protocol, FastConnection(self))

    def take_back(self, transport: asyncio.Transport) -> None:
        """Go on with a connection that was lent to the aiohttp lane."""
        connection = FastConnection(self)
        connection.connection_made(transport)
        transport.set_protocol(cast(asyncio.Protocol, connection))
        transport.resume_reading()
        if self.draining:
            connection.end_soon()

    def end_exchanges(self, fits: Callable[[Actor], bool], after_s: float) -> None:
        """Cut requests of actors that fit which are still under way after some seconds."""
        for connection in tuple(self.connections):
            connection.end_exchange(fits, after_s)

    def forget(self, connection: FastConnection) -> None:
        """A connection ended, or was handed over."""
        self.connections.discard(connection)
        if not self.connections and self.draining:
            self.empty.set()

    def _sweep(self) -> None:
        """Judge the deadlines of all connections with one timer."""
        now = self.loop.time()
        if now - self._heads_since > HEADS_AGE_S:
            self._heads_since = now
            self.heads.grow_old()
        for connection in tuple(self.connections):
            connection.check_deadline(now)
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    async def drain(self, grace_s: float) -> None:
        """Let what is under way finish, close what is idle, cut what is left after the grace."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.end_soon()
        if self.connections:
            try:
                async with asyncio.timeout(grace_s):
                    await self.empty.wait()
            except TimeoutError:
                for connection in tuple(self.connections):
                    connection.transport.abort()
        self._sweeper.cancel()
