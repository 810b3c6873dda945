"""The measured cache is the gateway's own, and it knows everybody whose look-up is timed."""

import random

import pytest

from benchmarks.lookups import filled, measure, sampled, timed
from config.model import Route
from gateway.policy.routes import RouteTable

(RULE,) = RouteTable.compile([Route(path="/**", auth="required", upstream="app")]).routes


async def test_cache_knows_as_many_callers_as_were_asked_for() -> None:
    callers, digests = await filled(50, RULE)

    found = [callers.known(digest) for digest in digests]

    assert len({caller.actor.user_id for caller in found if caller is not None}) == 50


async def test_lookup_of_somebody_unknown_is_not_timed() -> None:
    callers, digests = await filled(2, RULE)

    with pytest.raises(RuntimeError, match="forgot"):
        timed(callers, [*digests, b"?" * 32])


def test_each_round_is_kept_but_the_first() -> None:
    few, many = measure(2, 50, rounds=3)

    assert (few.principals, many.principals) == (2, 50)
    assert len(few.nanoseconds) == len(many.nanoseconds) == 3


def test_sample_copies_keys() -> None:
    digests = [bytes([number]) * 32 for number in range(5)]

    taken = sampled(digests, random.Random(1))

    assert set(taken) == set(digests)
    assert not {id(digest) for digest in taken} & {id(digest) for digest in digests}
