"""Definitions in flagd's format: what they give, and how a file that does not fit is refused."""

import json

import pytest

from gateway.flags.definitions import evaluate, parse
from gateway.flags.provider import DefinitionsInvalid, Facts, Json

ALICE = Facts("usr_1", "ADMIN", "org_1", "admin", "alice@ours.test")
BOB = Facts("usr_2", "USER", "org_2", "member", "bob@else.test")


def values(flag: dict[str, Json], facts: Facts = ALICE, **beside: Json) -> dict[str, Json]:
    return evaluate(parse(json.dumps({"flags": {"flag": flag}, **beside}), "flags.json"), facts)


ON_OFF: dict[str, Json] = {"state": "ENABLED", "variants": {"on": True, "off": False}}


def test_a_flag_has_its_default_variant_without_targeting() -> None:
    assert values({**ON_OFF, "defaultVariant": "on"}) == {"flag": True}


def test_targeting_names_the_variant_and_null_means_the_default() -> None:
    targeting: Json = {"if": [{"$ref": "ours"}, "on", None]}
    flag = {**ON_OFF, "defaultVariant": "off", "targeting": targeting}
    ours: Json = {"ours": {"ends_with": [{"var": "email"}, "@ours.test"]}}

    assert [values(flag, who, **{"$evaluators": ours}) for who in (ALICE, BOB)] == [{"flag": True}, {"flag": False}]


@pytest.mark.parametrize("role", ["USER", "ADMIN"])
def test_a_boolean_result_names_the_variants_true_and_false(role: str) -> None:
    flag: dict[str, Json] = {
        "state": "ENABLED",
        "variants": {"true": "yes", "false": "no"},
        "targeting": {"==": [{"var": "role"}, role]},
    }

    assert values(flag) == {"flag": "yes" if role == "ADMIN" else "no"}


@pytest.mark.parametrize(
    "flag",
    [
        {**ON_OFF, "state": "DISABLED", "defaultVariant": "on"},
        {**ON_OFF, "defaultVariant": None},
        ON_OFF,
        {**ON_OFF, "defaultVariant": "on", "targeting": {"cat": ["go", "ne"]}},
    ],
)
def test_a_flag_that_is_off_or_names_no_variant_has_no_value(flag: dict[str, Json]) -> None:
    assert values(flag) == {}


def test_shares_are_of_users_unless_said_otherwise() -> None:
    halves: list[Json] = [["on", 50], ["off", 50]]
    of_users: dict[str, Json] = {**ON_OFF, "targeting": {"fractional": halves}}
    of_organizations: dict[str, Json] = {**ON_OFF, "targeting": {"fractional": [{"var": "organization_id"}, *halves]}}
    people = [Facts(f"usr_{n}", "USER", "org_1", "member") for n in range(1000)]

    share = sum(values(of_users, who)["flag"] is True for who in people)
    assert 430 < share < 570
    assert len({values(of_organizations, who)["flag"] for who in people}) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"flags": {\n "a": }', "f.json:2: not JSON"),
        ("[]", "f.json:1: the document: must be an object"),
        ('{"flags": {},\n\n "flag": {}}', "f.json:3: flag: is not known"),
        ('{"flags": {\n"a": {"state": "ON",\n"variants": {"x": 1}}}}', "f.json:2: flags.a.state: must be ENABLED"),
        (
            '{"flags": {\n"a": {"state": "ENABLED",\n"variants": {"x": 1},\n"defaultVariant": "y"}}}',
            "f.json:4: flags.a.defaultVariant: names no variant",
        ),
        (
            '{"flags": {\n"a": {"state": "ENABLED", "variants": {"x": 1},\n\n"targeting": {"nope": [1]}}}}',
            "f.json:4: flags.a.targeting: operator 'nope' is not known",
        ),
        ('{"flags": {"a": {"state": "ENABLED", "variants": {"x": 1, "y": "1"}}}}', "must all be of one type"),
        ('{"flags": {"a": {}, "a": {}}}', "is there twice"),
        ('{"flags": {"a": {"state": "ENABLED", "variants": {"x": NaN}}}}', "NaN is not JSON"),
        ('{"flags": {"a": {"state": "ENABLED", "variants": {}}}}', "at least one variant"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(DefinitionsInvalid) as refused:
        parse(text, "f.json")

    assert message in str(refused.value)
