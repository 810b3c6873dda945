"""How what runs in the background comes to its end."""

import asyncio
from typing import Any

AGAIN_S = 1.0
"""`asyncio.wait_for` of Python 3.11, which libraries use too, loses a cancellation that comes together with what was
waited for (cpython, gh-86296); so one that shows nothing is said again."""


async def end_tasks(*tasks: asyncio.Task[Any] | None, quietly: bool = False) -> None:
    """Cancel tasks, all of them at once, and wait until each is over; None and ended ones are as well.

    Args:
        tasks: To end.
        quietly: Whoever waited for them has heard how they failed.

    Raises:
        Exception: What a task failed with before, unless quietly: nobody else would hear of it.
    """
    running = [task for task in tasks if task is not None]
    waiting = {task for task in running if not task.done()}
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=AGAIN_S)
    failures = [task.exception() for task in running if not task.cancelled()]
    for failure in failures:
        if failure is not None and not quietly:
            raise failure
