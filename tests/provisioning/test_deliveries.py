"""Each delivery counts once, and is not remembered for ever."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from provisioning.database.pool import Database
from provisioning.deliveries import DeliveryUpkeep, first_time
from tests.support.tokens import count, execute


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


async def arrives(database: Database, source: str = "clerk", delivery_id: str = "msg_1") -> bool:
    async with database.transaction() as connection:
        return await first_time(connection, source, delivery_id)


async def test_a_delivery_counts_once_for_each_sender(database: Database) -> None:
    assert [await arrives(database), await arrives(database), await arrives(database, "stripe")] == [True, False, True]


async def test_of_many_at_once_one_counts(database: Database) -> None:
    assert sum(await asyncio.gather(*(arrives(database) for _ in range(30)))) == 1


async def test_a_delivery_whose_effect_failed_counts_again(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.transaction() as connection:
            await first_time(connection, "clerk", "msg_1")
            raise RuntimeError

    assert await arrives(database)


async def test_old_deliveries_are_forgotten(database: Database) -> None:
    await execute(
        database,
        """INSERT INTO webhook_deliveries SELECT 'clerk', 'old_' || n, now() - interval '31 days'
           FROM generate_series(1, 2500) n""",
    )
    await arrives(database)

    assert await DeliveryUpkeep(database).forget() == 2500
    assert await count(database, "webhook_deliveries") == 1


async def test_upkeep_forgets_by_itself_until_it_is_closed(database: Database) -> None:
    await execute(database, "INSERT INTO webhook_deliveries VALUES ('clerk', 'old', now() - interval '31 days')")
    upkeep = DeliveryUpkeep(database, forget_every_s=0.01)
    upkeep.start()
    for _ in range(1000):
        if not await count(database, "webhook_deliveries"):
            break
        await asyncio.sleep(0.01)
    await upkeep.close()

    assert await count(database, "webhook_deliveries") == 0
