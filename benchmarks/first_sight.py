"""The first request of a new person beside that of a known one: what making their records adds for who waits for it.

Everything is on: user, organization, membership, first API token, trial, audit events, and what the outbox is to tell
Slack and PostHog. One client, one connection, known and new people in turns; nobody delivers meanwhile.
"""

import http.client
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.checks import Wrong
from benchmarks.scenarios import HOST
from benchmarks.surroundings import USERS, Surroundings, token
from benchmarks.systems import Running, gateway

PEOPLE = 300
"""New ones in a round."""
_EVERYTHING: dict[str, Any] = {
    "provisioning": {"trial_days": 14, "trial_plan": "pro"},
    "slack": {"webhook_url": "http://127.0.0.1:9/services/T0/B0/none"},
    "posthog": {"host": "http://127.0.0.1:9", "project_key": "phc_benchmark"},
    "outbox": {"deliver": False},
}


@dataclass(frozen=True, slots=True)
class FirstRequests:
    """Milliseconds until the answer was there, of every request of a round."""

    known: tuple[float, ...]
    new: tuple[float, ...]


def measure(place: Surroundings, rounds: int) -> list[FirstRequests]:
    """Measure rounds of new people, after one that only warms up.

    Raises:
        Wrong: Somebody was refused.
    """
    with gateway(place, **_EVERYTHING) as running:
        return [_round(place, running, number) for number in range(rounds + 1)][1:]


def _round(place: Surroundings, running: Running, number: int) -> FirstRequests:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    first = USERS + number * PEOPLE
    people = [token(person) for person in range(first, first + PEOPLE)]
    known, new = [], []
    for text in people:
        new.append(_timed(connection, text))
        known.append(_timed(connection, place.tokens[0]))
    connection.close()
    return FirstRequests(tuple(known), tuple(new))


def _timed(connection: http.client.HTTPConnection, text: str) -> float:
    start = time.perf_counter()
    connection.request("GET", "/api/items", headers={"Host": HOST, "Authorization": f"Bearer {text}"})
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise Wrong(f"the first request of a person was answered {answer.status}")
    return (time.perf_counter() - start) * 1e3
