"""Interleaved rounds of wrk: every system in turn, so that a neighbour's noise falls on all of them alike."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import LOAD_CORE, cpu_seconds, memory_of, program
from benchmarks.scenarios import Scenario, parse_shot, script
from benchmarks.systems import Running

_WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Round:
    """One run of wrk against one system.

    Attributes:
        rate: Requests per second.
        cpu_s: Processor time that the system's processes used.
        rss_kb: Resident memory of its processes after the run, shared pages counted in each.
        pss_kb: The same, shared pages divided among those who share them.
        failed: Requests that failed; the round is spoilt when there are any.
    """

    rate: float
    requests: int
    p50_ms: float
    p99_ms: float
    cpu_s: float
    rss_kb: int
    pss_kb: int
    failed: int

    @property
    def per_cpu_second(self) -> float:
        """Requests for each second of processor time of the system."""
        return self.requests / self.cpu_s if self.cpu_s else 0.0


def shoot(running: Running, scenario: Scenario, lua: Path, seconds: float) -> Round:
    """Run wrk once."""
    command = ["taskset", "-c", LOAD_CORE, program("wrk"), "-t1", f"-c{scenario.connections}"]
    command += [f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(lua), f"http://127.0.0.1:{running.port}"]
    before = cpu_seconds(running.pids)
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(running.pids) - before
    shot = parse_shot(output)
    memory = memory_of(running.pids)
    rate = shot.requests / shot.seconds
    return Round(rate, shot.requests, shot.p50_ms, shot.p99_ms, used, memory.rss, memory.pss, shot.failed)


def interleaved(
    systems: Mapping[str, Running], scenario: Scenario, tokens: Mapping[str, Path], seconds: float, rounds: int
) -> dict[str, list[Round]]:
    """Measure systems, given by name as the files of their tokens are; each round begins with another of them."""
    scripts: dict[str, Path] = {}
    for name in systems:
        scripts[name] = tokens[name].with_name(f"{tokens[name].name}-{scenario.name}.lua")
        scripts[name].write_text(script(scenario, tokens[name]))
        shoot(systems[name], scenario, scripts[name], _WARM_UP_S)
    names, results = list(systems), {name: list[Round]() for name in systems}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            result = shoot(systems[name], scenario, scripts[name], seconds)
            results[name].append(result)
            spoilt = f", {result.failed} failed" if result.failed else ""
            print(f"{scenario.name} {number + 1}/{rounds}  {name}: {result.rate:,.0f}/s{spoilt}", flush=True)
    return results
