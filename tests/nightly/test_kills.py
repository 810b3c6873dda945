"""`gateway dev` killed at random moments, again and again. `NIGHTLY_STARTS` makes it fewer times."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.dev.dev_process import END_DEADLINE_S, DevProcess, all_gone, paste, start_dev

STARTS = int(os.environ.get("NIGHTLY_STARTS", "20"))
LATEST_S = 3.0
"""A start takes about half of this on a quiet machine, so that kills fall into it and after it."""


def kill_after(data_dir: Path, seconds: float) -> set[int]:
    """Start `gateway dev`, kill it without warning, and give the ids of all its processes."""
    command = [sys.executable, "-m", "gateway", "dev", "--port", "0", "--data-dir", str(data_dir)]
    with (data_dir.parent / "output.txt").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, text=True, start_new_session=True)
    run = DevProcess(process)
    time.sleep(seconds)
    assert process.poll() is None, (data_dir.parent / "output.txt").read_text()
    family = run.descendants() | {process.pid}
    process.send_signal(signal.SIGKILL)
    process.wait(END_DEADLINE_S)
    return family


def test_no_kill_leaves_a_process_or_keeps_the_next_start_from_working(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    moments = random.Random(seed)
    for _ in range(STARTS):
        family = kill_after(tmp_path / "data", moments.uniform(0.0, LATEST_S))

        assert all_gone(family)

    last = start_dev(tmp_path / "data")
    answer = paste(last.command("/users/current"))
    family = last.descendants()
    code = last.end()

    assert answer.status == 200
    assert code == 0
    assert all_gone(family)


def test_every_start_after_a_kill_works_and_knows_the_same_person(tmp_path: Path) -> None:
    people = set()
    for _ in range(max(2, STARTS // 4)):
        run = start_dev(tmp_path / "data")
        people.add(paste(run.command("/users/current")).json()["id"])
        family = run.descendants()
        run.end(signal.SIGKILL)

        assert all_gone(family)

    assert len(people) == 1
