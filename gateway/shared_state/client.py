"""The one way to Redis: answers or refuses within a quarter of a second, and heals by itself.

Importing this reads redis-py, which is large: do it in a thread, and only where `redis.url` is set (`opening.py`).
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import redis
from redis.asyncio import Redis, RedisCluster, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    MaxConnectionsError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)

from config.redis_address import RedisAddress, RedisKind, parse_redis_url
from gateway.shared_state.errors import REASONS, RedisUnavailable
from provisioning.database.breaker import Breaker
from provisioning.patience import patience
from provisioning.transports import is_dead

DEADLINE_S = 0.25
CONNECTIONS = 64
"""The most questions at once; who comes too many waits, within the deadline."""
_MOST = (
    2 * CONNECTIONS
)  # which leaves room for subscribers: the pools of clusters and sentinels refuse instead of waiting
OPEN_S = 1.0
"""How long nobody asks after a failure."""
_DOES_NOT_SERVE = (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ReadOnlyError,
    OutOfMemoryError,
    ClusterDownError,
    TryAgainError,
)
_SAYS_IT_DOES_NOT_SERVE = ("MISCONF", "NOREPLICAS", "BUSY ", "MASTERDOWN")
T = TypeVar("T")


class SharedRedis:
    """A Redis, a cluster, or the master of sentinels.

    Attributes:
        client: redis-py's; ask it through `run` alone.
        breaker: Shared state of "Redis is away".
        failures: Count by reason, for metrics.
    """

    def __init__(self, url: str, authorities: str | None = None, breaker: Breaker | None = None) -> None:
        """Settle where to ask; the first question connects.

        Args:
            url: `redis.url`.
            authorities: PEM of who signs the servers' certificates; None: whom the system trusts.
            breaker: Replaces the usual one.

        Raises:
            ValueError: It is no URL of Redis.
        """
        address = parse_redis_url(url)
        self._sentinel = _sentinel(address, authorities)
        self.client: Any = _client(address, _options(address, authorities), self._sentinel)
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self.breaker = breaker or Breaker(OPEN_S)
        self.failures = dict.fromkeys(REASONS, 0)

    async def run(self, ask: Callable[[Any], Awaitable[T]]) -> T:
        """Ask something, within a quarter of a second altogether, and not more than `CONNECTIONS` at once.

        Args:
            ask: Takes the client. It may be asked twice, where a kept connection turns out to be dead.

        Raises:
            RedisUnavailable: There is no answer, or none that serves.
        """
        if not self.breaker.allows():
            raise self._failure("breaker_open")
        probes = not self.breaker.closed
        try:
            async with patience(DEADLINE_S), self._slots:
                answer = await self._asked(ask)
        except (RedisError, RedisClusterException, OSError, ValueError, RuntimeError) as error:
            # The last two are redis-py's for answers it cannot read, asyncio's and uvloop's for dying connections.
            raise self._judged(error) from error
        finally:
            if probes:
                self.breaker.abandoned()  # has no effect after a verdict
        self.breaker.succeeded()
        return answer

    async def _asked(self, ask: Callable[[Any], Awaitable[T]]) -> T:
        try:
            return await ask(self.client)
        except RuntimeError as error:
            if not is_dead(error):
                raise
            return await ask(self.client)  # redis-py has let go of that connection, and does not try again itself

    def subscriber(self) -> PubSub:
        """Make a subscription, which ends with its one connection; whoever asked for it closes it."""
        pubsub: Any = self.client.pubsub(ignore_subscribe_messages=False)
        pubsub._reconnect = _do_not_reconnect  # redis-py has no setting for it
        subscription: PubSub = pubsub
        return subscription

    async def close(self) -> None:
        """Close all connections."""
        await self.client.aclose()
        if self._sentinel is not None:
            for one in self._sentinel.sentinels:
                await one.aclose()

    def _judged(self, error: Exception) -> RedisUnavailable:
        if isinstance(error, MaxConnectionsError):  # we are many, it is not away
            self.breaker.abandoned()
            return self._failure("timeout")
        reason = _reason(error)
        if reason == "command_refused":
            self.breaker.succeeded()
        else:
            self.breaker.failed(timed_out=reason == "timeout")
        return self._failure(reason)

    def _failure(self, reason: str) -> RedisUnavailable:
        self.failures[reason] += 1
        return RedisUnavailable(reason)


async def _do_not_reconnect(_connection: Any, error: Exception, *_rest: Any) -> None:
    """Stand in for redis-py's, which connects, subscribes, fails and connects again from inside itself, without end."""
    raise error


def _reason(error: Exception) -> str:
    """Give an error one of `REASONS`."""
    if isinstance(error, TimeoutError | redis.exceptions.TimeoutError):
        return "timeout"
    if isinstance(error, _DOES_NOT_SERVE) or str(error).startswith(_SAYS_IT_DOES_NOT_SERVE):
        return "refused"
    if isinstance(error, ResponseError) and not isinstance(error, ClusterError):
        return "command_refused"  # WRONGTYPE, NOPERM and the like: who may write to Redis opens no breaker with them
    return "unreachable"


def _options(address: RedisAddress, authorities: str | None) -> dict[str, Any]:
    """Give each connection's options; redis-py's own deadlines and retries add up to more than ten seconds."""
    options: dict[str, Any] = {
        "username": address.user,
        "password": address.password,
        "protocol": 2,  # with 3 come pushes that nobody reads
        "driver_info": None,  # else each connection says who it is, in a round trip more, and reads that from disk
        "socket_timeout": DEADLINE_S,
        "socket_connect_timeout": DEADLINE_S,
        "health_check_interval": 15,
    }
    if address.tls:
        options |= {"connection_class": _Tls, "context": _context(authorities)}
    return options


def _context(authorities: str | None) -> ssl.SSLContext:
    """Make the context of all connections. Reads files of the system: call it off the loop."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies certificates and names
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authorities is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.load_verify_locations(cadata=authorities)
    return context


def _sentinel(address: RedisAddress, authorities: str | None) -> Any:
    if address.kind is not RedisKind.SENTINEL:
        return None
    # Sentinels have users of their own, or none. Each is tried once: another may be there.
    options = _options(address, authorities) | {"username": None, "password": None, "retry": Retry(NoBackoff(), 0)}
    sentinel: Any = Sentinel  # without types in redis-py
    made = sentinel([])
    made.sentinels = [Redis.from_pool(ConnectionPool(host=host, port=port, **options)) for host, port in address.hosts]
    return made


def _client(address: RedisAddress, options: dict[str, Any], sentinel: Any) -> Any:
    once = Retry(NoBackoff(), 1)  # heals a kept connection that died
    match address.kind:
        case RedisKind.CLUSTER:
            return _cluster(address, options, once)
        case RedisKind.SENTINEL:
            kind = _SentinelTls if address.tls else SentinelManagedConnection
            of_master: Any = SentinelConnectionPool  # without types in redis-py
            options |= {"connection_class": kind, "db": address.database, "retry": once}
            return Redis.from_pool(of_master(address.service, sentinel, max_connections=_MOST, **options))
        case RedisKind.SOCKET:
            where: dict[str, Any] = {"path": address.path, "connection_class": UnixDomainSocketConnection}
        case RedisKind.SERVER:
            host, port = address.hosts[0]
            where = {"host": host, "port": port, "db": address.database}
    return Redis.from_pool(ConnectionPool(max_connections=_MOST, retry=once, **options | where))


def _cluster(address: RedisAddress, options: dict[str, Any], once: Retry) -> RedisCluster:
    """Nodes keep what they were made with, so the first ones are made again once what all shall have is complete."""
    of_nodes = {name: options.pop(name) for name in ("connection_class", "context") if name in options}
    nodes = [ClusterNode(host, port) for host, port in address.hosts]
    cluster = RedisCluster(startup_nodes=nodes, retry=once, max_connections=_MOST, **options)
    manager: Any = cluster.nodes_manager
    manager.connection_kwargs.update(of_nodes)
    first = [ClusterNode(node.host, node.port, **manager.connection_kwargs) for node in nodes]
    manager.startup_nodes = {node.name: node for node in first}
    return cluster


class _Tls(SSLConnection):
    """Takes our context: redis-py would make one for each connection, reading the system's authorities on the loop."""

    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = context


class _SentinelTls(SentinelManagedConnection, _Tls):
    """The same to the master that Sentinels name."""
