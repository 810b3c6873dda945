"""What wrk prints of losses is read, and told."""

import pytest

from benchmarks.disturbances import Losses, parse_losses, table

CLEAN = "  241298 requests in 8.00s, 200.00MB read\nRequests/sec:  30162.25\n"
LOSSY = CLEAN + "  Socket errors: connect 1, read 33, write 2, timeout 4\n  Non-2xx or 3xx responses: 7\n"


def test_a_run_without_losses_is_read() -> None:
    assert parse_losses(CLEAN) == Losses(241298, 0, 0, 0, 0)


def test_losses_are_read_apart() -> None:
    assert parse_losses(LOSSY) == Losses(241298, refused=1, broken=35, timed_out=4, others=7)


def test_anything_else_is_refused() -> None:
    with pytest.raises(ValueError, match="no result"):
        parse_losses("unable to connect")


def test_the_table_has_a_row_for_each() -> None:
    rows = table({"a reload": parse_losses(CLEAN), "a kill": parse_losses(LOSSY)}).splitlines()

    assert rows[2:] == ["| a reload | 241,298 | 0 | 0 | 0 | 0 |", "| a kill | 241,298 | 1 | 35 | 4 | 7 |"]
