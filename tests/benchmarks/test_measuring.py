"""What is read from the kernel, and what is asked of systems before their figures count."""

import os
import subprocess
import sys

import pytest

from benchmarks.checks import Wrong, check_identity
from benchmarks.plan import OTHERS, SOCKETS, plan
from benchmarks.processes import Memory, cpu_seconds, memory_of, parse_rollup, tree
from benchmarks.scenarios import SCENARIOS
from benchmarks.surroundings import token
from benchmarks.systems import SYSTEMS

ROLLUP = """\
55a0c0000000-7ffd00000000 ---p 00000000 00:00 0    [rollup]
Rss:               60000 kB
Pss:               40000 kB
Pss_Dirty:         20000 kB
Pss_Anon:          30000 kB
Pss_File:           9000 kB
Pss_Shmem:          1000 kB
THPeligible:           0
"""
ALICE = {"actor": "usr_alice", "organization": "org_a", "authorization": ""}


def test_memory_is_read_with_what_comes_from_no_file() -> None:
    assert parse_rollup(ROLLUP) == Memory(rss=60_000, pss=40_000, own=31_000)


def test_children_and_their_children_count_for_a_process() -> None:
    sleeps = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", sleeps], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()

        family = tree([parent.pid])

        assert len(family) == 2
        assert cpu_seconds([parent.pid]) > cpu_seconds(family[1:]) > 0
        assert memory_of([parent.pid]).rss > memory_of(family[1:]).rss > 0
        assert parent.pid in tree([os.getpid()])


def test_identity_told_by_the_proxy_alone_is_right() -> None:
    check_identity("proxy", ALICE)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"actor": "usr_forged"}, "forged"),
        ({"actor": "usr_alice, usr_forged"}, "forged"),
        ({"organization": "org_forged"}, "forged"),
        ({"actor": ""}, "not told"),
        ({"authorization": "Bearer x"}, "credential"),
    ],
)
def test_system_that_tells_the_upstream_wrong_is_not_measured(change: dict[str, str], complaint: str) -> None:
    with pytest.raises(Wrong, match=complaint):
        check_identity("proxy", ALICE | change)


def test_tokens_are_of_one_length_that_is_usual() -> None:
    (length,) = {len(token(number, session)) for number, session in ((0, None), (49, None), (7, 999_999))}

    assert 800 <= length <= 900


def test_run_of_everything_is_the_only_whole_one() -> None:
    everything = plan(None, [])

    assert everything.whole
    assert everything.systems == {system.name for system in SYSTEMS}
    assert everything.scenarios == {*(scenario.name for scenario in SCENARIOS), *OTHERS}
    assert everything.sockets == SOCKETS
    assert not plan(None, ["--only", "actorgate"]).whole
    assert not plan(None, ["--scenario", "get-64"]).whole
    assert not plan(None, ["--quick"]).whole


def test_quick_run_takes_lengths_that_are_given() -> None:
    chosen = plan(None, ["--quick", "--seconds", "3", "--principals", "500"])

    assert (chosen.seconds, chosen.rounds, chosen.principals) == (3, 2, 500)


def test_unknown_system_is_refused() -> None:
    with pytest.raises(SystemExit):
        plan(None, ["--only", "apache"])
