"""What wrk is told, and what is read from it."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scenarios import SCENARIOS, Scenario, Shot, parse_shot, script

COUNTS = st.integers(min_value=0, max_value=2**53)
TIMES = st.floats(min_value=0, max_value=1e9, allow_nan=False)
SHOTS = st.builds(Shot, requests=COUNTS, seconds=TIMES, p50_ms=TIMES, p99_ms=TIMES, failed=COUNTS)


@given(SHOTS, st.text(st.characters(blacklist_characters="{")))
def test_result_is_read_from_behind_what_wrk_prints_itself(shot: Shot, printed: str) -> None:
    assert parse_shot(f"{printed}\n{json.dumps(asdict(shot))}\n") == shot


def test_output_without_a_result_is_refused_and_shown() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        parse_shot("unable to connect to 127.0.0.1:1 Connection refused")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_script_sends_the_head_that_frames_the_body(scenario: Scenario) -> None:
    text = script(scenario, Path("/tokens"))

    assert f'"{scenario.method} {scenario.path} HTTP/1.1\\r\\nHost: ' in text
    assert (f"Content-Length: {scenario.body}\\r\\n\\r\\n" in text) == (scenario.body > 0)
    assert f'string.rep("x", {scenario.body})' in text
    assert '"/tokens"' in text


def test_names_are_told_apart() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
