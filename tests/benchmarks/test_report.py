"""The report: every table is one, and says what was found."""

import itertools
import re

from benchmarks.goals import GOALS
from benchmarks.report import NOT_MEASURED, goals_table, load_table, markdown
from benchmarks.scale import ROUTE_SYSTEMS
from benchmarks.systems import SYSTEMS
from tests.benchmarks.build import a_round, everything, results

NAMED = {system.name: system for system in (*SYSTEMS, *ROUTE_SYSTEMS)}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def tables(text: str) -> list[list[list[str]]]:
    """All tables of a text, as rows of cells."""
    groups = itertools.groupby(text.splitlines(), key=lambda line: line.startswith("|"))
    return [[cells(line) for line in lines] for is_table, lines in groups if is_table]


def test_all_rows_of_a_table_have_as_many_cells_as_its_head() -> None:
    found = tables(markdown(everything(), NAMED))

    assert len(found) == 6  # ratios, three loads, look-ups, websockets
    assert all(len(row) == len(table[0]) for table in found for row in table)
    assert all(re.fullmatch("---:?", ruler) for table in found for ruler in table[1])


def test_every_goal_has_its_row_whether_measured_or_not() -> None:
    rows = [cells(line) for line in goals_table(everything())[2:]]

    assert [row[0] for row in rows] == [goal.against for goal in GOALS]
    measured = {row[0]: row[3] for row in rows}
    assert measured["Envoy jwt_authn"] == "1.50×"
    assert measured["idle websocket, 8,000 held in one process"] == "6.50 KB"
    assert measured["ClientSession proxy"] == NOT_MEASURED


def test_systems_stand_in_the_order_of_their_speed_beside_what_they_cannot() -> None:
    rows = [cells(line) for line in load_table(everything().loads["get-64"], NAMED)[2:]]

    assert [row[0] for row in rows] == [NAMED[name].title for name in ("nginx", "actorgate", "envoy")]
    assert [row[-1] for row in rows] == [NAMED[name].lacks for name in ("nginx", "actorgate", "envoy")]


def test_row_shows_median_spread_and_cost() -> None:
    rounds = [a_round(100, cpu_s=2.0), a_round(300, cpu_s=1.0), a_round(200, cpu_s=1.0)]

    (row,) = load_table({"actorgate": rounds}, NAMED)[2:]

    assert cells(row)[1:7] == ["200", "100–300", "200", "1.00", "5.00", "2"]


def test_downloads_show_bytes() -> None:
    (row,) = load_table({"actorgate": [a_round(1_500)]}, NAMED, answer_bytes=1_000_000)[2:]

    assert cells(row)[2] == "1,500"


def test_failed_requests_are_told_beside_the_figure() -> None:
    (row,) = load_table({"actorgate": [a_round(100), a_round(100, failed=3)]}, NAMED)[2:]

    assert cells(row)[1] == "100 (3 failed)"


def test_notes_and_programs_are_told() -> None:
    found = results()
    found.notes.append("workers: not measured, for a reason.")
    found.programs["nginx"] = "1.2.3"

    text = markdown(found, NAMED)

    assert "- workers: not measured, for a reason." in text
    assert "nginx 1.2.3" in text
