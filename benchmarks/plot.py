"""The picture: requests per second and p99 of every system at 64 connections."""

import statistics
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.goals import OURS
from benchmarks.results import Results
from benchmarks.systems import System

_OURS, _OTHERS = "#0b6e4f", "#9aa5b1"
_LEFT_OUT = frozenset({"no-proxy"})  # five times the longest bar that says something


def draw(results: Results, systems: Mapping[str, System], path: Path) -> bool:
    """Write a PNG; false when nothing was measured at 64 connections."""
    rows = {name: rounds for name, rounds in results.loads.get("get-64", {}).items() if name not in _LEFT_OUT}
    if not rows:
        return False
    rates = {name: statistics.median(result.rate for result in rounds) for name, rounds in rows.items()}
    slowest = {name: statistics.median(result.p99_ms for result in rounds) for name, rounds in rows.items()}
    order = sorted(rates, key=lambda name: rates[name])
    figure = Figure(figsize=(12, 0.5 * len(order) + 1.6))
    axes = figure.subplots(1, 2, sharey=True)
    titles = [systems[name].title.replace("`", "") for name in order]
    colours = [_OURS if name in {OURS, "aiohttp-lane"} else _OTHERS for name in order]
    panels = ((rates, "requests/s (more is better)", "{:,.0f}"), (slowest, "p99, ms (less is better)", "{:.1f}"))
    for axis, (values, title, shown) in zip(axes, panels, strict=True):
        bars = axis.barh(titles, [values[name] for name in order], color=colours)
        axis.bar_label(bars, labels=[shown.format(values[name]) for name in order], padding=3)
        axis.set_title(title)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("GET, 800 B answer, 64 connections, one core; median of interleaved rounds")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    return True
