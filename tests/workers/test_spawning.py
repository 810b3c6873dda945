"""A system that has no process to give."""

import asyncio
import sys
from pathlib import Path

import pytest

from config.values import Address
from config.watch import Source
from gateway.listen.sockets import bind_shared
from gateway.workers.supervisor import Crew, WorkerFailed
from tests.support.gateway import settings_for


async def test_a_worker_that_cannot_be_spawned_is_told_at_the_first_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    settings = settings_for("postgresql://a@127.0.0.1/b", "http://127.0.0.1:1", "http://127.0.0.1:2")
    crew = Crew(
        settings, Source(tmp_path / "gateway.yaml", {}), bind_shared(Address("127.0.0.1", 0), 2), "postgresql:///b"
    )

    with pytest.raises(WorkerFailed, match=r"no process for worker 0: .*No such file"):
        await crew.start(asyncio.Event())
    await crew.stop()
