"""The report in Markdown. Pure: results in, text out."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from benchmarks.goals import GOALS, Goal
from benchmarks.results import Results, Spread
from benchmarks.rounds import Round
from benchmarks.scenarios import SCENARIOS
from benchmarks.systems import System
from benchmarks.websockets import Sockets, Talk

NOT_MEASURED = "not measured"
_SCALE_TITLES = {
    "routes": "Scale: routes",
    "flags": "Flags: 12 of a file, and none",
    "principals": "Scale: principals, over the wire",
    "get-64-api-token": "Credentials: cached API tokens and cached sessions, one gateway",
    "workers": "Scale: workers",
}


def markdown(results: Results, systems: Mapping[str, System]) -> str:
    """Write everything that was measured; `systems` are all that may occur, by name."""
    titles = {scenario.name: scenario for scenario in SCENARIOS}
    parts = [_opening(results), "## Speed it must show\n", *goals_table(results)]
    for name, rows in results.loads.items():
        scenario = titles.get(name)
        parts += ["", f"## {scenario.title if scenario else _SCALE_TITLES.get(name, name)}\n"]
        parts += load_table(rows, systems, scenario.answer if scenario and scenario.name == "download-64" else 0)
    if results.lookups is not None:
        parts += ["", "## Scale: look-ups in the near cache\n", *_lookups_table(results)]
    if results.first_requests:
        parts += ["", "## First request of a person\n", *_first_requests_table(results)]
    if results.sockets:
        parts += ["", "## Websockets\n", *sockets_table(results.sockets, systems)]
    if results.notes:
        parts += ["", "## Notes\n", *(f"- {note}" for note in results.notes)]
    return "\n".join(parts) + "\n"


def _opening(results: Results) -> str:
    programs = ", ".join(f"{name} {version}" for name, version in results.programs.items())
    return (
        "# Benchmark\n\n"
        f"One run on one machine: median of {results.rounds} interleaved rounds of {results.seconds:g} s. Every system"
        " has the first core to itself; its upstream (nginx) and the load (wrk) share the second. RS256 session tokens"
        " of 50 people take turns. Memory is PSS of all processes of a system after its last round, without PostgreSQL;"
        " *cannot* names what a system leaves out of what the gateway does.\n\n"
        f"{programs}.\n"
    )


def row(cells: Iterable[str]) -> str:
    """Write one row of a table."""
    return f"| {' | '.join(cells)} |"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Write a table; columns after the first whose head begins with `>` are aligned right."""
    names = [name.removeprefix(">") for name in head]
    rulers = ["---:" if name.startswith(">") else "---" for name in head]
    return [row(names), row(rulers), *(row(cells) for cells in rows)]


def goals_table(results: Results) -> list[str]:
    """The table of ratios, all rows in their order, measured or not."""
    return table(
        ("against", ">floor", ">goal", ">measured", "lowest–highest", ""),
        (_goal_cells(goal, goal.measured(results)) for goal in GOALS),
    )


def _goal_cells(goal: Goal, found: Spread | None) -> list[str]:
    sign = "≤ " if goal.less_is_better else ""
    cells = [goal.against, f"{sign}{goal.floor:g}{goal.unit}", f"{sign}{goal.goal:g}{goal.unit}"]
    if found is None:
        return [*cells, NOT_MEASURED, "", ""]
    spread = f"{found.lowest:.2f}–{found.highest:.2f}"
    return [*cells, f"{found.median:.2f}{goal.unit}", spread, goal.verdict(found.median)]


def load_table(rows: Mapping[str, Sequence[Round]], systems: Mapping[str, System], answer_bytes: int = 0) -> list[str]:
    """One scenario's systems, the fastest first; with bytes per answer, also how much they carry."""
    head = ["system", ">requests/s", "lowest–highest", ">per CPU-second", ">p50 ms", ">p99 ms", ">memory MB", "cannot"]
    if answer_bytes:
        head.insert(2, ">MB/s")
    by_speed = sorted(rows.items(), key=lambda item: -statistics.median(result.rate for result in item[1]))
    return table(head, (_load_cells(systems[name], results, answer_bytes) for name, results in by_speed))


def _load_cells(system: System, results: Sequence[Round], answer_bytes: int) -> list[str]:
    rate = Spread.of([result.rate for result in results])
    failed = sum(result.failed for result in results)
    cells = [
        system.title,
        f"{rate.median:,.0f}" + (f" ({failed} failed)" if failed else ""),
        f"{rate.lowest:,.0f}–{rate.highest:,.0f}",
        f"{statistics.median(result.per_cpu_second for result in results):,.0f}",
        f"{statistics.median(result.p50_ms for result in results):.2f}",
        f"{statistics.median(result.p99_ms for result in results):.2f}",
        f"{results[-1].pss_kb / 1024:.0f}",
        system.lacks,
    ]
    if answer_bytes:
        cells.insert(2, f"{rate.median * answer_bytes / 1e6:,.0f}")
    return cells


def _lookups_table(results: Results) -> list[str]:
    assert results.lookups is not None
    spreads = [(result.principals, Spread.of(result.nanoseconds)) for result in results.lookups]
    return table(
        ("principals", ">ns per look-up", "lowest–highest"),
        (
            [f"{count:,}", f"{found.median:,.0f}", f"{found.lowest:,.0f}–{found.highest:,.0f}"]
            for count, found in spreads
        ),
    )


def _first_requests_table(results: Results) -> list[str]:
    columns = {
        "known": [each.known for each in results.first_requests],
        "new": [each.new for each in results.first_requests],
    }
    return table(
        ("person", ">requests", ">p50 ms", ">p99 ms"),
        (
            [
                name,
                f"{sum(len(times) for times in rounds):,}",
                f"{statistics.median(chain.from_iterable(rounds)):.2f}",
                f"{statistics.quantiles(chain.from_iterable(rounds), n=100)[98]:.2f}",
            ]
            for name, rounds in columns.items()
        ),
    )


def sockets_table(sockets: Mapping[str, Sockets], systems: Mapping[str, System]) -> list[str]:
    """Idle memory at each count, and medians of the rounds."""
    counts = sorted({idle.connections for found in sockets.values() for idle in found.idle})
    head = ["system", *(f">idle KB each at {count:,}" for count in counts)]
    head += [">messages/s", ">per CPU-second", ">handshakes/s", ">per CPU-second", "cannot"]
    return table(head, (_socket_cells(name, found, counts, systems) for name, found in sockets.items()))


def _socket_cells(name: str, found: Sockets, counts: Sequence[int], systems: Mapping[str, System]) -> list[str]:
    system, idle = systems.get(name), {result.connections: result.kb_each for result in found.idle}

    def median(of: str) -> str:
        values: list[float] = [getattr(talk, of) for talk in found.talks]
        return f"{statistics.median(values):,.0f}" if values else "–"

    return [
        system.title if system else "no proxy: the limit of the set-up",
        *(f"{idle[count]:.1f}" if count in idle else "–" for count in counts),
        *(median(of) for of in Talk.__dataclass_fields__),
        system.lacks if system else "everything",
    ]
