"""The ring's rows in PostgreSQL: one ring for all replicas, changed by one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from provisioning.database.pool import Connection, Database
from provisioning.errors import SealBroken
from provisioning.sealing import Sealer
from provisioning.signing_key import (
    RingKey,
    RotationRules,
    in_order,
    new_key,
    next_signs_from,
    over_at,
    private_bytes,
    read_key,
)

PURPOSE = "signing keys"
"""What the keys are sealed for (`sealing.py`)."""
_LOCK_KEY = 0x6B657972696E67  # "keyring": any constant of our own
_SELECT = "SELECT kid, sealed, signs_from, created_at FROM signing_keys"
_INSERT = "INSERT INTO signing_keys (kid, sealed, signs_from, created_at) VALUES ($1, $2, $3, $4)"


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key as it is kept; times in Unix seconds."""

    kid: str
    sealed: bytes = field(repr=False)
    signs_from: float
    created_at: float

    def open(self, sealer: Sealer) -> RingKey:
        """Open it.

        Raises:
            SealBroken: It does not open, or holds something else than its name says.
        """
        try:
            return read_key(sealer.unseal(self.sealed, self.kid), self.kid, self.signs_from, self.created_at)
        except ValueError as error:
            raise SealBroken from error


class RingRecords:
    """Reads and changes the rows; callers give the time, in Unix seconds.

    Attributes:
        sealer: Seals for `PURPOSE`.
    """

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self.sealer = sealer
        self._database = database

    async def read(self) -> list[KeyRow]:
        """Read the ring, in order.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be asked.
        """
        async with self._database.connection() as connection:
            return await _rows(connection)

    async def turn(self, rules: RotationRules, now: float) -> list[KeyRow] | None:
        """Do what is due: make the next key, and delete those that are over.

        Returns:
            The ring afterwards; None while another replica is at it.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be asked.
        """
        async with self._database.transaction() as connection:
            if not await _locked(connection):
                return None
            rows = await _rows(connection)
            gone = [row.kid for row in rows if is_over(rows, row, rules, now)]
            if gone:
                await connection.execute("DELETE FROM signing_keys WHERE kid = ANY($1)", gone)
            signs_from = next_signs_from(rows, rules, now)
            if signs_from is not None:
                await self._add(connection, signs_from, now)
            return await _rows(connection)

    async def rotate(self, signs_from: float, now: float, *, discard: bool = False) -> list[KeyRow] | None:
        """Make a key out of turn.

        Args:
            signs_from: From when it signs. Keys that are published to sign later than that are deleted.
            now: Unix seconds.
            discard: Delete all other keys, and with them the worth of everything they signed.

        Returns:
            The ring afterwards; None while another replica is at it.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be asked.
        """
        async with self._database.transaction() as connection:
            if not await _locked(connection):
                return None
            if discard:
                await connection.execute("DELETE FROM signing_keys")
            else:
                later = _moment(max(signs_from, now))
                await connection.execute("DELETE FROM signing_keys WHERE signs_from >= $1", later)
            await self._add(connection, signs_from, now)
            return await _rows(connection)

    async def _add(self, connection: Connection, signs_from: float, now: float) -> None:
        key = new_key(signs_from, now)
        sealed = self.sealer.seal(private_bytes(key), key.kid)
        await connection.execute(_INSERT, key.kid, sealed, _moment(signs_from), _moment(now))


def is_over(ordered: Sequence[KeyRow], row: KeyRow, rules: RotationRules, now: float) -> bool:
    """Tell whether everything a key signed has died."""
    ends = over_at(ordered, row, rules)
    return ends is not None and ends <= now


async def _locked(connection: Connection) -> bool:
    """Take the ring's lock until the transaction ends; never wait for it while holding a connection."""
    return cast(bool, await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK_KEY))


async def _rows(connection: Connection) -> list[KeyRow]:
    rows = await connection.fetch(_SELECT)
    return in_order(
        [
            KeyRow(row["kid"], row["sealed"], row["signs_from"].timestamp(), row["created_at"].timestamp())
            for row in rows
        ]
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
