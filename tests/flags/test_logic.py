"""Targeting rules, held against what flagd publishes for every evaluator, and against its own one for Python.

The examples are those of open-feature/flagd-testbed, evaluator/gherkin/fractional.feature, tag `@fractional-v2`.
"""

import pytest

from gateway.flags.logic import compile_rule
from gateway.flags.murmur import murmur3
from gateway.flags.provider import DefinitionsInvalid, Json

SUITS: list[Json] = [["clubs", 25], ["diamonds", 25], ["hearts", 25], ["spades", 25]]


def result(rule: Json, context: dict[str, object] | None = None, flag: str = "flag") -> object:
    return compile_rule(rule, {})({**(context or {}), "$flagd": {"flagKey": flag}})


@pytest.mark.parametrize(
    ("text", "hashed"),
    [
        (b"", 0),
        (b"test", 0xBA6BD213),
        (b"Hello, world!", 0xC0363E43),
        (b"The quick brown fox jumps over the lazy dog", 0x2E4FF723),
    ],
)
def test_hashes_are_those_of_the_published_vectors(text: bytes, hashed: int) -> None:
    assert murmur3(text) == hashed


@pytest.mark.parametrize(
    ("name", "suit"),
    [("jack", "hearts"), ("queen", "spades"), ("ten", "clubs"), ("nine", "diamonds"), (3, "clubs")],
)
def test_shares_fall_as_flagd_publishes_them(name: str | int, suit: str) -> None:
    rule: Json = {"fractional": [{"cat": [{"var": "$flagd.flagKey"}, {"var": "user.name"}]}, *SUITS]}

    assert result(rule, {"user": {"name": name}}, "fractional-flag") == suit


@pytest.mark.parametrize(
    ("name", "suit"), [("seven", "hearts"), ("eight", "diamonds"), ("nine", "clubs"), ("two", "spades")]
)
def test_shares_with_a_shared_seed_fall_as_flagd_publishes_them(name: str, suit: str) -> None:
    rule: Json = {"fractional": [{"cat": ["shared-seed", {"var": "user.name"}]}, *SUITS]}

    assert result(rule, {"user": {"name": name}}) == suit


@pytest.mark.parametrize(
    ("key", "half"),
    [("ejOoVL", "lower"), ("bY9fO-", "lower"), ("SI7p-", "lower"), ("6LvT0", "upper"), ("ceQdGm", "upper")],
)
def test_hashes_at_the_very_edges_fall_as_flagd_publishes_them(key: str, half: str) -> None:
    rule: Json = {"fractional": [{"var": "targetingKey"}, ["lower", 50], ["upper", 50]]}

    assert result(rule, {"targetingKey": key}) == half


@pytest.mark.parametrize(("key", "side"), [("jon@company.com", "heads"), ("jane@company.com", "tails")])
def test_without_a_text_the_flag_and_the_targeting_key_are_hashed(key: str, side: str) -> None:
    rule: Json = {"fractional": [["heads"], ["tails", 1]]}

    assert result(rule, {"targetingKey": key}, "fractional-flag-shorthand") == side


@pytest.mark.parametrize(
    ("key", "tier", "colour"),
    [("jon@company.com", "premium", "red"), ("jon@company.com", "basic", "blue"), ("user1", "premium", "red")],
)
def test_weights_may_be_rules(key: str, tier: str, colour: str) -> None:
    weight: Json = {"if": [{"==": [{"var": "tier"}, "premium"]}, 100, 0]}
    rule: Json = {"fractional": [{"var": "targetingKey"}, ["red", weight], ["blue", 10]]}

    assert result(rule, {"targetingKey": key, "tier": tier}) == colour


@pytest.mark.parametrize(
    "shares",
    [[["a", 0]], [["a", 1.5]], [["a", "1"]], ["a"], [[]], [["a", 1e999]], [["a", 2**31]]],
)
def test_shares_that_make_no_sense_choose_nothing(shares: list[Json]) -> None:
    assert result({"fractional": ["key", *shares]}) is None


@pytest.mark.parametrize(
    ("left", "relation", "right", "holds"),
    [
        ("2.0.0", "=", "2.0.0", True),
        ("2.1.0", ">", "2.0.0", True),
        ("1.9.0", "<", "2.0.0", True),
        ("3.0.1", "~", "3.0.0", True),
        ("3.1.0", "~", "3.0.0", False),
        ("3.1.0", "^", "3.0.0", True),
        ("4.0.0", "^", "3.0.0", False),
        ("v1.0.0", "=", "1.0.0", True),
        ("1.2", "^", "1", True),
        ("1.0.0+other", "=", "1.0.0+build", True),
        ("1.0.0-alpha.1", "<", "1.0.0-alpha.beta", True),
        ("1.0.0-rc.2", "<", "1.0.0-rc.11", True),
        ("1.0.0-rc", "<", "1.0.0", True),
        ("1.0.0", "!=", "1.0.1", True),
        ("1.0.0", ">=", "1.0.0", True),
        ("1.0.0", "<=", "0.9.9", False),
        ("not a version", "=", "1.0.0", None),
        ("1.0.0", "===", "1.0.0", None),
    ],
)
def test_versions_compare_by_semantic_versioning(left: str, relation: str, right: str, holds: bool | None) -> None:
    assert result({"sem_ver": [{"var": "version"}, relation, right]}, {"version": left}) is holds


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ({"starts_with": ["abcdef", "abc"]}, True),
        ({"ends_with": ["abcdef", "abc"]}, False),
        ({"starts_with": [5, "abc"]}, None),
        ({"in": ["b", ["a", "b"]]}, True),
        ({"in": ["b", "abc"]}, True),
        ({"in": [1, [True]]}, False),
        ({"==": [1, "1"]}, True),
        ({"===": [1, "1"]}, False),
        ({"!=": [None, 0]}, True),
        ({"!": [[]]}, True),
        ({"!!": ["0"]}, True),
        ({"and": [True, "", "x"]}, ""),
        ({"or": [0, "", "x"]}, "x"),
        ({"if": [False, 1, True, 2, 3]}, 2),
        ({"if": [False, 1]}, None),
        ({"<": [1, 2, 3]}, True),
        ({">=": ["b", "a"]}, True),
        ({">": ["x", 1]}, False),
        ({"var": "list.1"}, "b"),
        ({"var": ["missing", "else"]}, "else"),
    ],
)
def test_operators_do_what_json_logic_says(rule: Json, value: object) -> None:
    assert result(rule, {"list": ["a", "b"]}) == value


def test_named_parts_stand_for_their_rules() -> None:
    rule = compile_rule({"if": [{"$ref": "ours"}, "in", "out"]}, {"ours": {"ends_with": [{"var": "email"}, "@a.test"]}})

    assert [rule({"email": email}) for email in ("x@a.test", "x@b.test")] == ["in", "out"]


@pytest.mark.parametrize(
    ("rule", "evaluators"),
    [
        ({"exec": ["x"]}, {}),
        ({"starts_with": ["x"]}, {}),
        ({"$ref": "gone"}, {}),
        ({"$ref": "self"}, {"self": {"!": [{"$ref": "self"}]}}),
        ({"==": [1, 1], "!": [1]}, {}),
    ],
)
def test_rules_that_cannot_be_evaluated_are_refused_when_read(rule: Json, evaluators: dict[str, Json]) -> None:
    with pytest.raises(DefinitionsInvalid):
        compile_rule(rule, evaluators)


def test_evaluators_that_name_each_other_again_and_again_are_refused_before_they_fill_the_memory() -> None:
    evaluators: dict[str, Json] = {f"e{n}": {"and": [{"$ref": f"e{n + 1}"}, {"$ref": f"e{n + 1}"}]} for n in range(25)}
    evaluators["e25"] = True

    with pytest.raises(DefinitionsInvalid, match="parts"):
        compile_rule({"$ref": "e0"}, evaluators)


@pytest.mark.parametrize("asked", ["$flagd.timestamp", ["$flagd.timestamp", 0]])
def test_a_rule_that_goes_by_the_clock_is_refused_since_its_outcome_would_be_remembered(asked: Json) -> None:
    with pytest.raises(DefinitionsInvalid, match=r"\$flagd\.timestamp"):
        compile_rule({"<": [{"var": asked}, 1_800_000_000]}, {})
