"""The way to PostgreSQL: a pool that answers or refuses within a second, and heals by itself.

Everything that means "PostgreSQL cannot be asked now" leaves here as `DatabaseUnavailable`; all else passes as it is.
Connections carry no session state (no SET, no LISTEN, no advisory locks): that is what makes the cheap reset safe.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self, TypeAlias

import asyncpg

from provisioning.database.breaker import Breaker
from provisioning.errors import DatabaseUnavailable
from provisioning.patience import patience
from provisioning.transports import is_dead

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

CONNECT_TIMEOUT_S = 0.5
STATEMENT_TIMEOUT_S = 0.7
CLOSE_TIMEOUT_S = 2.0
_LATE = 10  # times its time, and a statement ends however late the loop is
REASONS = ("unreachable", "timeout", "refused", "pool_exhausted", "breaker_open", "closed", "conflict")
"""As `DatabaseUnavailable` has them."""

# SQLSTATE classes by which a server that answers still says that it does not serve: 57P starting or stopping,
# 53 no more connections, memory or disk, 28 and 3D no such login or database, 25006 read-only (a demoted primary).
_REFUSALS = ("57P", "53", "28", "3D", "25006")


def unavailable_reason(error: BaseException, *, closed: bool) -> str | None:
    """Judge an error: a word of `REASONS` when it means that PostgreSQL cannot be asked now, else None.

    Args:
        error: What asyncpg raised.
        closed: Whether the connection is gone: asyncpg then raises `InterfaceError`, its class for misuse too.
    """
    if isinstance(error, TimeoutError | asyncpg.QueryCanceledError):
        return "timeout"
    if is_dead(error):
        return "unreachable"
    if isinstance(error, OSError | asyncpg.PostgresConnectionError):
        return "refused" if isinstance(error, asyncpg.CannotConnectNowError) else "unreachable"
    if isinstance(error, asyncpg.PostgresError):
        return "refused" if (error.sqlstate or "").startswith(_REFUSALS) else None
    if closed and isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return "unreachable"
    return None


class Database:
    """A pool of connections to one PostgreSQL, opened without asking it.

    Attributes:
        connections_lent: How often a connection was lent, for metrics.
        failures: Count by reason, for metrics.
        breaker: Shared state of "PostgreSQL is away".
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        acquire_timeout: float = 5.0,
        statement_timeout: float = STATEMENT_TIMEOUT_S,
        breaker: Breaker | None = None,
    ) -> None:
        """Settle where to connect.

        Args:
            url: DSN; Unix sockets (`?host=/folder`) and TLS (`?sslmode=…`) too.
            pool_size: Most connections at once.
            acquire_timeout: Seconds to wait for a connection while all are busy.
            statement_timeout: Seconds one statement may take.
            breaker: Replaces the usual one.
        """
        self._url = url
        self._pool_size = pool_size
        self._acquire_timeout = acquire_timeout
        self._statement_timeout = statement_timeout
        self._slots = asyncio.Semaphore(pool_size)
        self._waiting: set[asyncio.Task[Any]] = set()
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self.breaker = breaker or Breaker()
        self.connections_lent = 0
        self.failures = dict.fromkeys(REASONS, 0)

    async def open(self) -> None:
        """Make the pool. Nothing is asked yet: a gateway may start while PostgreSQL is away."""
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._pool_size,
            command_timeout=_LATE * self._statement_timeout,
            connection_class=_patient(self._statement_timeout),
            # The default reset costs a round trip per use. asyncpg still rolls back an open transaction before this.
            reset=_keep,
            server_settings={"application_name": "gateway"},
        )

    async def close(self) -> None:
        """Close what is open; busy connections get two seconds."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection. Only statements belong inside: a timeout raised there counts as PostgreSQL's.

        Raises:
            DatabaseUnavailable: From lending, or in place of the error inside that says so.
        """
        pool = self._pool
        if pool is None:
            raise self._failure("closed")
        if not self.breaker.allows():
            raise self._failure("breaker_open")
        probes = not self.breaker.closed
        try:
            await self._take_slot()
            try:
                async with self._lent(pool) as connection:
                    yield connection
            finally:
                self._slots.release()
        finally:
            if probes:
                self.breaker.abandoned()  # has no effect after a verdict

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction: committed at the end, rolled back after any error.

        Raises:
            DatabaseUnavailable: As `connection`. When COMMIT itself got no answer, it may or may not have happened.
        """
        async with self.connection() as connection:
            await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")  # whatever the server's default says
            try:
                yield connection
            except Exception as error:
                # asyncpg's own transaction would ask a dead server too, and make the caller wait for that. A connection
                # that ends without COMMIT rolls back by itself.
                if unavailable_reason(error, closed=_is_closed(connection)) is None:
                    await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")

    @asynccontextmanager
    async def _lent(self, pool: "asyncpg.Pool[asyncpg.Record]") -> AsyncIterator[Connection]:
        try:
            async with patience(CONNECT_TIMEOUT_S):
                connection = await pool.acquire()
        except Exception as error:
            # Only asyncpg was at work: whatever it stumbled over, perhaps no PostgreSQL at all, nobody can be asked.
            reason = unavailable_reason(error, closed=True) or "refused"
            await self._failed(pool, hard=reason != "timeout")
            raise self._failure(reason) from error
        self.connections_lent += 1
        try:
            yield connection
        except BaseException as error:
            failure = unavailable_reason(error, closed=_is_closed(connection))
            if failure is not None:
                _drop(connection)
                await self._failed(pool, hard=failure != "timeout")
                raise self._failure(failure) from error
            if not isinstance(error, Exception):
                _drop(connection)  # cancelled within a statement: its answer may still be on the way
            else:
                self.breaker.succeeded()
            if isinstance(error, asyncpg.TransactionRollbackError):
                raise self._failure("conflict") from error
            raise
        else:
            self.breaker.succeeded()
        finally:
            # What fails in giving back ends that connection, and all answers are in our hands already.
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await pool.release(connection, timeout=CONNECT_TIMEOUT_S)

    async def _take_slot(self) -> None:
        """Wait for a free connection, but not while PostgreSQL is away: the first to notice wakes all who wait."""
        if not self._slots.locked():
            await self._slots.acquire()
            return
        taking = asyncio.create_task(self._slots.acquire())
        self._waiting.add(taking)
        try:
            async with asyncio.timeout(self._acquire_timeout):
                await asyncio.wait((taking,))
        except TimeoutError:
            self._stop_taking(taking)
            raise self._failure("pool_exhausted") from None
        except asyncio.CancelledError:
            self._stop_taking(taking)
            raise
        finally:
            self._waiting.discard(taking)
        if taking.cancelled():
            raise self._failure("breaker_open")

    def _stop_taking(self, taking: "asyncio.Task[Any]") -> None:
        if taking.done() and not taking.cancelled():
            self._slots.release()  # it got the slot in the instant we gave up
        else:
            taking.cancel()

    async def _failed(self, pool: "asyncpg.Pool[asyncpg.Record]", *, hard: bool) -> None:
        if self.breaker.failed(timed_out=not hard):
            for waiting in self._waiting:
                waiting.cancel()
            # Others may hang on the same dead peer without knowing; each will be replaced before its next use.
            await pool.expire_connections()

    def _failure(self, reason: str) -> DatabaseUnavailable:
        self.failures[reason] += 1
        return DatabaseUnavailable(reason)


def _patient(seconds: float) -> "type[asyncpg.Connection[asyncpg.Record]]":
    """Make the class of connections whose statements may take so long each; asyncpg's own timers do not wait for us."""

    class Patient(asyncpg.Connection):
        __slots__ = ()

        async def execute(self, *args: Any, **more: Any) -> Any:
            async with patience(seconds):
                return await super().execute(*args, **more)

        async def executemany(self, *args: Any, **more: Any) -> Any:
            async with patience(seconds):
                return await super().executemany(*args, **more)

        async def fetch(self, *args: Any, **more: Any) -> Any:
            async with patience(seconds):
                return await super().fetch(*args, **more)

        async def fetchrow(self, *args: Any, **more: Any) -> Any:
            async with patience(seconds):
                return await super().fetchrow(*args, **more)

        async def fetchval(self, *args: Any, **more: Any) -> Any:
            async with patience(seconds):
                return await super().fetchval(*args, **more)

    return Patient


def _is_closed(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # it died, and asyncpg took it from us already
        return True


def _drop(connection: Connection) -> None:
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _keep(_: object) -> None:
    """Reset nothing."""
