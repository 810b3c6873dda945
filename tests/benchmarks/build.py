"""Results as a run would find them."""

from benchmarks.lookups import Lookups
from benchmarks.results import Results
from benchmarks.rounds import Round
from benchmarks.websockets import Idle, Sockets, Talk


def a_round(rate: float, *, p99_ms: float = 5.0, cpu_s: float = 1.0, failed: int = 0) -> Round:
    """A round of one second."""
    return Round(rate, int(rate), 1.0, p99_ms, cpu_s, rss_kb=4096, pss_kb=2048, failed=failed)


def results(**loads: dict[str, list[Round]]) -> Results:
    """A run of three rounds; scenarios are given with underscores for hyphens."""
    return Results(1.0, 3, loads={name.replace("_", "-"): rows for name, rows in loads.items()})


def everything() -> Results:
    """A run that measured something of every kind."""
    found = results(
        get_64={"actorgate": [a_round(30_000)], "nginx": [a_round(60_000, p99_ms=1)], "envoy": [a_round(20_000)]},
        download_64={"actorgate": [a_round(1_500)], "nginx": [a_round(2_000)]},
        routes={"one-route": [a_round(100)], "many-routes": [a_round(95)]},
    )
    found.sockets["actorgate"] = Sockets((Idle(2_000, 7.0), Idle(8_000, 6.5)), (Talk(1_000, 2_000, 300, 400),))
    found.sockets["direct"] = Sockets((), (Talk(9_000, 9_000, 900, 900),))
    found.lookups = (Lookups(10, (200.0, 210.0)), Lookups(1_000_000, (1_200.0, 1_210.0)))
    found.notes.append("workers: not measured")
    return found
