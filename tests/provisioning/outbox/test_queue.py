import asyncio
from datetime import timedelta

import asyncpg
import pytest

from provisioning.database.pool import Database
from provisioning.outbox.effects import Effect
from provisioning.outbox.queue import BATCH, REJECTIONS, Queue, enqueue
from tests.support.outboxes import posthog_effect, rows, slack_effect, states, write
from tests.support.tokens import execute

DAY_S = 86400.0


@pytest.fixture
def queue(database: Database) -> Queue:
    return Queue(database)


async def test_an_effect_stays_with_its_transaction_or_goes_with_it(database: Database) -> None:
    with pytest.raises(ValueError, match="changed its mind"):
        async with database.transaction() as connection:
            await enqueue(connection, slack_effect(1))
            raise ValueError("changed its mind")
    await write(database, slack_effect(2))

    assert [row["key"] for row in await rows(database)] == [slack_effect(2).key]


async def test_a_key_is_unique_within_its_topic_for_ever(database: Database, queue: Queue) -> None:
    await write(database, slack_effect(1), slack_effect(1), slack_effect(2))
    taken = await queue.take("slack", 1, 60)
    await queue.delivered(taken, [taken.deliveries[0].id])
    await write(database, slack_effect(1), Effect("posthog", "user_created", slack_effect(1).key, {}))

    assert [(row["topic"], row["key"][-1], row["state"]) for row in await rows(database)] == [
        ("slack", "1", "delivered"),
        ("slack", "2", "pending"),
        ("posthog", "1", "pending"),
    ]


async def test_two_transactions_write_one_key_once(database: Database) -> None:
    await asyncio.gather(*(write(database, slack_effect(1), slack_effect(2)) for _ in range(20)))

    assert len(await rows(database)) == 2


async def test_workers_hear_of_what_was_committed_and_of_nothing_else(database: Database, database_url: str) -> None:
    heard: list[object] = []
    listening = await asyncpg.connect(database_url)
    await listening.add_listener("gateway_outbox", lambda *word: heard.append(word[3]))
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as connection:
            await enqueue(connection, posthog_effect(1))
            raise ZeroDivisionError
    await write(database, slack_effect(1), slack_effect(2))
    await write(database, slack_effect(1))
    await listening.execute("SELECT 1")
    await listening.close()

    assert heard == ["slack"]


async def test_nobody_gets_what_another_has_until_its_lease_ends(database: Database, queue: Queue) -> None:
    await write(database, slack_effect(1))
    first = await queue.take("slack", 10, 60)
    second = await queue.take("slack", 10, 60)
    await execute(database, "UPDATE outbox SET next_attempt_at = now()")
    third = await queue.take("slack", 10, 60)
    await queue.delivered(first, [first.deliveries[0].id])
    late = await states(database)
    await queue.delivered(third, [third.deliveries[0].id])

    assert (len(first.deliveries), second.deliveries, third.deliveries[0].attempts) == (1, (), 2)
    assert late == ["pending"]
    assert await states(database) == ["delivered"]


async def test_many_who_take_at_once_share_the_rows_out(database: Database, queue: Queue) -> None:
    await write(database, *(slack_effect(number) for number in range(100)))

    takings = await asyncio.gather(*(queue.take("slack", 7, 60) for _ in range(20)))
    ids = [delivery.id for taken in takings for delivery in taken.deliveries]

    assert len(ids) == len(set(ids)) == 100


async def test_of_a_stream_one_is_under_way_at_a_time_in_the_order_of_writing(database: Database, queue: Queue) -> None:
    await write(database, posthog_effect(1), posthog_effect(2), posthog_effect(3, user="usr_bob"))
    first = await queue.take("posthog", 10, 60)
    behind = await queue.take("posthog", 10, 60)
    await queue.failed(first, first.deliveries[0], "timeout", 3600, DAY_S)
    waiting = await queue.take("posthog", 10, 60)
    await execute(database, "UPDATE outbox SET next_attempt_at = now() WHERE key = 'user_created:1'")
    again = await queue.take("posthog", 10, 60)
    await queue.delivered(again, [again.deliveries[0].id])
    last = await queue.take("posthog", 10, 60)

    assert [delivery.key[-1] for delivery in first.deliveries] == ["1", "3"]
    assert (behind.deliveries, waiting.deliveries) == ((), ())
    assert [delivery.key[-1] for delivery in again.deliveries] == ["1"]
    assert [delivery.key[-1] for delivery in last.deliveries] == ["2"]


async def test_those_behind_an_outage_are_not_due_before_the_first_of_their_stream(
    database: Database, queue: Queue
) -> None:
    await write(database, *(posthog_effect(number) for number in range(20)))
    first = await queue.take("posthog", 1, 60)
    await queue.failed(first, first.deliveries[0], "unreachable", 3600, DAY_S)
    nothing = await queue.take("posthog", 3, 60)
    due = await queue.due(["posthog"])
    waits = [row["wait"].total_seconds() for row in await rows(database)]
    await execute(database, "UPDATE outbox SET next_attempt_at = now() WHERE attempts > 0")
    again = await queue.take("posthog", 3, 60)
    await queue.delivered(again, [again.deliveries[0].id])
    follower = await queue.take("posthog", 3, 60)

    assert (nothing.deliveries, due) == ((), frozenset())
    assert min(waits) > 3500
    assert [delivery.key for delivery in follower.deliveries] == [posthog_effect(1).key]


async def test_a_dead_row_does_not_hold_its_stream_up(database: Database, queue: Queue) -> None:
    await write(database, posthog_effect(1), posthog_effect(2))
    first = await queue.take("posthog", 2, 60)
    await queue.failed(first, first.deliveries[0], "timeout", 3600, DAY_S)
    behind = await queue.take("posthog", 2, 60)
    await execute(database, "UPDATE outbox SET next_attempt_at = now() WHERE attempts > 0")
    again = await queue.take("posthog", 2, 60)
    await queue.failed(again, again.deliveries[0], "timeout", 0, 0.0)
    second = await queue.take("posthog", 2, 60)

    assert behind.deliveries == ()
    assert [delivery.key[-1] for delivery in second.deliveries] == ["2"]


async def test_what_was_delivered_keeps_its_key_and_nothing_about_anybody(database: Database, queue: Queue) -> None:
    await write(database, slack_effect(1, email="alice@example.com"))
    taken = await queue.take("slack", 1, 60)
    await queue.delivered(taken, [taken.deliveries[0].id])
    row = (await rows(database))[0]

    assert (row["payload"], row["key"], row["taken_by"]) == ({}, "user_created:usr_1", None)


async def test_a_failure_waits_and_says_why(database: Database, queue: Queue) -> None:
    await write(database, slack_effect(1))
    taken = await queue.take("slack", 1, 60)
    state = await queue.failed(taken, taken.deliveries[0], "timeout", 100, DAY_S)
    row = (await rows(database))[0]

    assert (state, row["last_error"], row["attempts"]) == ("pending", "timeout", 1)
    assert timedelta(seconds=90) < row["wait"] <= timedelta(seconds=100)


async def test_age_counts_from_the_first_attempt_so_a_long_stop_kills_nothing(database: Database, queue: Queue) -> None:
    await write(database, slack_effect(1))
    await execute(database, "UPDATE outbox SET created_at = now() - interval '30 days'")
    taken = await queue.take("slack", 1, 60)
    young = await queue.failed(taken, taken.deliveries[0], "timeout", 0, DAY_S)
    await execute(database, "UPDATE outbox SET first_attempt_at = now() - interval '2 days'")
    again = await queue.take("slack", 1, 60)
    old = await queue.failed(again, again.deliveries[0], "timeout", 0, DAY_S)

    assert (young, old) == ("pending", "dead")


async def test_a_receiver_that_says_no_five_times_is_believed(database: Database, queue: Queue) -> None:
    await write(database, slack_effect(1))
    told = []
    for _ in range(REJECTIONS):
        taken = await queue.take("slack", 1, 60)
        told.append(await queue.failed(taken, taken.deliveries[0], "rejected", 0, DAY_S))

    assert told == ["pending"] * (REJECTIONS - 1) + ["dead"]


async def test_whoever_lost_the_lease_changes_nothing(database: Database, queue: Queue) -> None:
    await write(database, slack_effect(1))
    first = await queue.take("slack", 1, 0)
    second = await queue.take("slack", 1, 60)
    state = await queue.failed(first, first.deliveries[0], "timeout", 0, 0.0)
    await queue.release(first, [first.deliveries[0].id])

    assert state is None
    assert (await rows(database))[0]["taken_by"] == second.name


async def test_what_was_released_is_due_and_was_no_attempt(database: Database, queue: Queue) -> None:
    await write(database, slack_effect(1))
    taken = await queue.take("slack", 1, 60)
    await queue.release(taken, [taken.deliveries[0].id])
    again = await queue.take("slack", 1, 60)

    assert again.deliveries[0].attempts == 1


async def test_only_topics_with_something_to_do_now_are_due(database: Database, queue: Queue) -> None:
    await write(database, slack_effect(1), posthog_effect(1))
    await queue.take("posthog", 1, 60)

    assert await queue.due(("slack", "posthog", "stripe")) == {"slack"}


async def test_depth_counts_what_waits_and_what_was_given_up(database: Database, queue: Queue) -> None:
    await write(database, slack_effect(1), slack_effect(2), slack_effect(3), posthog_effect(1))
    taken = await queue.take("slack", 2, 60)
    await queue.failed(taken, taken.deliveries[0], "timeout", 0, 0.0)
    await queue.delivered(taken, [taken.deliveries[1].id])
    await execute(database, "UPDATE outbox SET created_at = now() - interval '100 seconds' WHERE topic = 'posthog'")
    depth = await queue.depth()

    assert (depth["slack"].pending, depth["slack"].dead) == (1, 1)
    assert (depth["posthog"].pending, depth["posthog"].dead) == (1, 0)
    assert 100 <= depth["posthog"].oldest_s < 200


async def test_delivered_rows_go_after_their_time_and_dead_ones_after_ninety_days(
    database: Database, queue: Queue
) -> None:
    await write(database, *(slack_effect(number) for number in range(BATCH + 10)), *map(posthog_effect, range(4)))
    finished = "UPDATE outbox SET state = $1, finished_at = now() - make_interval(days => $2) WHERE topic = 'slack'"
    await execute(database, finished, "delivered", 8)
    await execute(
        database, "UPDATE outbox SET finished_at = now() - interval '6 days' WHERE key = 'user_created:usr_5'"
    )
    for number, days in ((0, 89), (1, 91)):
        await execute(
            database,
            "UPDATE outbox SET state = 'dead', finished_at = now() - make_interval(days => $1) WHERE key = $2",
            days,
            posthog_effect(number).key,
        )

    assert await queue.prune(7 * DAY_S) == BATCH + 10
    assert [row["key"] for row in await rows(database)] == [
        "user_created:usr_5",
        "user_created:0",
        "user_created:2",
        "user_created:3",
    ]


async def test_operators_try_again_what_was_given_up_as_if_for_the_first_time(database: Database, queue: Queue) -> None:
    await write(database, slack_effect(1), slack_effect(2))
    taken = await queue.take("slack", 2, 60)
    for delivery in taken.deliveries:
        await queue.failed(taken, delivery, "timeout", 3600, 0.0)
    dead = await queue.listed(None, dead=True, most=10)
    one = await queue.retry(dead[0].id)
    after = await queue.listed("slack", dead=False, most=10)
    rest = await queue.retry(None)
    row = (await rows(database))[0]

    assert [listed.state for listed in dead] == ["dead", "dead"]
    assert [listed.state for listed in after] == ["pending", "dead"]
    assert (one, rest, await queue.retry(None), await queue.retry(10**9)) == (1, 1, 0, 0)
    assert (row["first_attempt_at"], row["rejections"], row["state"]) == (None, 0, "pending")
    assert await queue.due(["slack"]) == {"slack"}


async def test_operators_hurry_what_waits_but_not_what_is_being_delivered(database: Database, queue: Queue) -> None:
    await write(database, slack_effect(1), slack_effect(2))
    taken = await queue.take("slack", 2, 60)
    await queue.failed(taken, taken.deliveries[0], "timeout", 3600, DAY_S)
    waiting, delivering = await queue.listed(None, dead=False, most=10)

    assert (waiting.state, delivering.state) == ("pending", "delivering")
    assert (await queue.retry(waiting.id), await queue.retry(delivering.id)) == (1, 0)


async def test_an_end_of_an_outage_hurries_those_it_held_up_and_no_others(database: Database, queue: Queue) -> None:
    await write(database, *(slack_effect(number) for number in range(3)))
    taken = await queue.take("slack", 3, 60)
    for delivery, reason in zip(taken.deliveries, ("unreachable", "rejected", "failed"), strict=True):
        await queue.failed(taken, delivery, reason, 3600, DAY_S)  # type: ignore[arg-type]  # words of Reason
    await queue.hurry("slack")
    again = await queue.take("slack", 3, 60)

    assert [delivery.key[-1] for delivery in again.deliveries] == ["0", "2"]
