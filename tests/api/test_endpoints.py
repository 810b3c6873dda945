"""The table of own endpoints: exact paths, templates, and what is not ours."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answer import Answer
from gateway.api.endpoints import Call, Endpoint, Endpoints
from gateway.errors import MethodRefused
from tests.policy.build import compiled

RULE = compiled(path="/x")


async def nothing(_: Call) -> Answer:
    return Answer(204)


TABLE = Endpoints(
    Endpoint(method, path, RULE, nothing)
    for method, path in [
        ("GET", "/things"),
        ("POST", "/things"),
        ("GET", "/things/{id}"),
        ("DELETE", "/things/{id}"),
        ("POST", "/things/{id}/parts/{part}"),
    ]
)


def leads_to(method: str, path: str) -> tuple[str, dict[str, str]] | None:
    endpoint = TABLE.find(method, path)
    return None if endpoint is None else (endpoint.path, dict(endpoint.parameters(path)))


def test_exact_path_has_no_parameters() -> None:
    assert leads_to("POST", "/things") == ("/things", {})


def test_template_gives_its_parameters_as_they_stand() -> None:
    assert leads_to("GET", "/things/a%2Fb") == ("/things/{id}", {"id": "a%2Fb"})
    assert leads_to("POST", "/things/1/parts/2") == ("/things/{id}/parts/{part}", {"id": "1", "part": "2"})


@pytest.mark.parametrize(
    "path", ["/things/", "/things/1/", "/things/1/parts", "/things/1/parts/", "/thing", "/Things/1"]
)
def test_parameter_is_one_whole_segment(path: str) -> None:
    assert leads_to("GET", path) is None
    assert path not in TABLE
    assert TABLE.rule_of(path) is None


def test_head_asks_for_what_get_answers_at_a_template() -> None:
    assert leads_to("HEAD", "/things/1") == leads_to("GET", "/things/1")


@pytest.mark.parametrize(
    "method,path,allowed",
    [
        ("PATCH", "/things/1", ("DELETE", "GET", "HEAD")),
        ("GET", "/things/1/parts/2", ("POST",)),
        ("DELETE", "/things", ("GET", "HEAD", "POST")),
    ],
)
def test_other_method_is_refused_with_those_allowed(method: str, path: str, allowed: tuple[str, ...]) -> None:
    with pytest.raises(MethodRefused) as refused:
        TABLE.find(method, path)

    assert refused.value.allowed == allowed


def test_table_without_templates_has_exact_paths_alone() -> None:
    table = Endpoints([Endpoint("GET", "/things", RULE, nothing)])

    assert "/things" in table
    assert "/things/1" not in table
    assert table.find("GET", "/other") is None


@given(st.lists(st.sampled_from(["/things", "/parts", "/", "a", "%2F", "things"]), max_size=8))
def test_any_path_is_ours_by_its_template_alone(pieces: list[str]) -> None:
    path = "".join(pieces)
    ours = re.fullmatch(r"/things(/[^/]+(/parts/[^/]+)?)?", path) is not None

    assert (path in TABLE) == ours
