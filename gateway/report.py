"""What commands print: the route table for people, everything as JSON for programs, failures in one line. Pure."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from config.checks import demands_of
from config.model import Route
from config.problems import SettingsProblem
from provisioning.errors import DatabaseUnavailable

_HEADINGS = ("#", "METHODS", "HOSTS", "PATH", "AUTH", "ACCEPT", "DEMANDS", "UPSTREAM")


def route_table(routes: Sequence[Route]) -> list[str]:
    """Lay the routes out in aligned columns, in the order they are tried."""
    return aligned([_HEADINGS, *(_cells(index, route) for index, route in enumerate(routes))])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay rows of the same number of cells out in columns, one line each."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(index: int, route: Route) -> tuple[str, ...]:
    return (
        str(index),
        ",".join(route.methods) or "any",
        ",".join(route.hosts) or "any",
        route.path,
        route.auth,
        "-" if route.auth == "none" else ",".join(route.accept),
        demands_text(route) or "-",
        route.upstream,
    )


def demands_text(route: Route) -> str:
    """Write what a route demands beyond a credential, such as `roles=ADMIN scopes=reports:read`."""
    values = {name: getattr(route, name) for name in demands_of(route)}
    return " ".join(f"{name}={value if isinstance(value, str) else ','.join(value)}" for name, value in values.items())


def json_report(
    problems: Iterable[SettingsProblem], warnings: Iterable[SettingsProblem], routes: Iterable[Route]
) -> str:
    """Write one JSON object with `ok`, `problems`, `warnings` and `routes`."""
    found = [asdict(problem) for problem in problems]
    report = {
        "ok": not found,
        "problems": found,
        "warnings": [asdict(warning) for warning in warnings],
        "routes": [route.model_dump(mode="json") for route in routes],
    }
    return json.dumps(report, ensure_ascii=False, indent=2)


def failure_text(error: Exception) -> str:
    """Say in one line what failed; of a cause only its kind, since drivers repeat parts of a DSN."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, DatabaseUnavailable):
        kind = f" ({type(error.__cause__).__name__})" if error.__cause__ else ""
        return f"PostgreSQL at database.url cannot be asked: {text}{kind}"
    return text
