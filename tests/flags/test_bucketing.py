"""Who falls into which share, as PostHog and flagd publish it and as their own packages for Python do it.

PostHog's tables are the first hundred results of the consistency tests that all its libraries share
(posthog-python, posthog/test/test_feature_flags.py): `simple-flag` at 45 percent, `multivariate-flag` at 55 percent
with variants of 50, 20, 20, 5 and 5 percent, for `distinct_id_0` and on.
"""

import json
from typing import Any, cast

import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openfeature.contrib.tools.flagd.core.targeting import targeting
from openfeature.evaluation_context import EvaluationContext

from gateway.flags.copies import NoCopies
from gateway.flags.logic import compile_rule
from gateway.flags.murmur import murmur3
from gateway.flags.posthog import PosthogFlags, Source
from gateway.flags.provider import Facts, Json
from tests.support.fake_posthog import PROJECT_KEY, SECRET_KEY, fake_posthog

SIMPLE = "FTTFTFFTFTFTTFTFFFTTFTFFTFTTFFFTTTTFFFFFFTTFTTFFFTTFFFFTFTFTFTTFTFTFTTFFTFFTFTFFTFFFTTFTTFTTTTTFTTFF"
MULTIVARIATE = "221--21---13-121--41-3---1111113-321-3--12-112-1--11121-22321-124-111-12-3------15-212-33----3--11-3"
VARIANTS = {"first-variant": 50, "second-variant": 20, "third-variant": 20, "fourth-variant": 5, "fifth-variant": 5}


def posthogs(key: str, percentage: int, **filters: Any) -> dict[str, Any]:
    groups = [{"properties": [], "rollout_percentage": percentage}]
    return {"id": 1, "key": key, "active": True, "filters": {"groups": groups, **filters}}


async def test_shares_fall_as_posthog_publishes_them() -> None:
    variants = [{"key": name, "name": name, "rollout_percentage": share} for name, share in VARIANTS.items()]
    async with fake_posthog() as fake:
        fake.flags = [
            posthogs("simple-flag", 45),
            posthogs("multivariate-flag", 55, multivariate={"variants": variants}),
        ]
        names = [flag["key"] for flag in fake.flags]
        flags = PosthogFlags(Source(fake.url, PROJECT_KEY, SECRET_KEY), names, [], NoCopies(), poll_s=3600)
        await flags.start()
        told = [flags.evaluate(Facts(f"distinct_id_{number}", "USER", "org_1", "member")) for number in range(100)]
        await flags.close()

    digits: dict[bool | str, str] = {False: "-"} | {name: str(number) for number, name in enumerate(VARIANTS, 1)}
    assert "".join("T" if one["simple-flag"] else "F" for one in told) == SIMPLE
    assert "".join(digits[cast(bool | str, one["multivariate-flag"])] for one in told) == MULTIVARIATE


@given(st.binary(max_size=64))
def test_hashes_are_those_of_the_package_that_flagd_takes(data: bytes) -> None:
    assert murmur3(data) == mmh3.hash(data, signed=False)


KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
SHARES = st.lists(
    st.tuples(st.text(min_size=1, max_size=3), st.integers(-5, 2**29)).map(list)
    | st.text(min_size=1, max_size=3).map(lambda name: [name]),
    min_size=1,
    max_size=5,
)


@given(KEYS, KEYS, SHARES, st.none() | KEYS)
def test_shares_fall_as_flagds_own_evaluator_has_them(
    flag: str, user: str, shares: list[list[str | int]], seed: str | None
) -> None:
    bucket_by: list[Any] = [] if seed is None else [{"cat": [seed, {"var": "targetingKey"}]}]
    rule: dict[str, Any] = {"fractional": [*bucket_by, *shares]}

    ours = compile_rule(rule, {})({"targetingKey": user, "$flagd": {"flagKey": flag}})

    assert ours == targeting(flag, json.loads(json.dumps(rule)), EvaluationContext(user))


@pytest.mark.parametrize(
    "rule",
    [
        {"if": [{"in": ["@faas.com", {"var": ["email"]}]}, "yes", None]},
        {"==": [{"var": "age"}, "20"]},
        {"<": [10, {"var": "age"}, 30]},
        {"!": [{"var": "nothing"}]},
        {"and": [{"var": "email"}, {"!!": {"var": "list"}}]},
        {"or": [{"var": "nothing"}, {"var": "age"}]},
        {"cat": ["a", {"var": "age"}, {"var": "email"}]},
        {"in": [2, {"var": "list"}]},
        {"===": [{"var": "age"}, "20"]},
        {"var": ["nothing", "instead"]},
        {"starts_with": [{"var": "email"}, "rachel"]},
        {"ends_with": [{"var": "email"}, "@else.com"]},
        {"sem_ver": [{"var": "version"}, "^", "1.0.0"]},
        {"sem_ver": [{"var": "version"}, "~", "1.3.0"]},
        {"?:": [{">": [{"var": "age"}, 20]}, "old", "young"]},
    ],
)
def test_rules_say_what_flagds_own_evaluator_says(rule: dict[str, Json]) -> None:
    context = {"email": "rachel@faas.com", "age": 20, "list": [1, 2], "version": "1.2.3"}

    ours = compile_rule(rule, {})({**context, "targetingKey": "user", "$flagd": {"flagKey": "flag"}})

    assert ours == targeting("flag", rule, EvaluationContext("user", cast(dict[str, Any], context)))
