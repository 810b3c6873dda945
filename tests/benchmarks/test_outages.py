"""What was seen of outages is told."""

from collections import Counter

from benchmarks.outages import KINDS, Answers, Outage, heading, row


def test_a_row_tells_times_statuses_and_what_came_after() -> None:
    known = Answers([3.0, 1.0, 2.0, 900.0], Counter({200: 3, 503: 1}))
    answers = dict.fromkeys(KINDS, Answers()) | {KINDS[0]: known}
    told = row("redis, reset", Outage(answers, 1.25, 7, 30))

    assert heading().startswith("| away | known session | new session |")
    assert told == "| redis, reset | 3 / 900 / 900 (3×200, 1×503) | - | - | - | - | 1.2 s | 7 | 30 |"
