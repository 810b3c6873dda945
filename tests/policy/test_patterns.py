"""Path patterns: exact, `*`, `**`."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.patterns import compile_pattern


@pytest.mark.parametrize(
    "pattern, matching, other",
    [
        ("/", ["/"], ["/a", "//"]),
        ("/admin", ["/admin"], ["/ADMIN", "/admin/", "/admin%20", "/admins", "/a/admin", "/"]),
        ("/admin/", ["/admin/"], ["/admin", "/admin/x"]),
        (
            "/public/**",
            ["/public", "/public/", "/public/a", "/public/a/b/"],
            ["/publicity", "/", "/x/public", "/Public"],
        ),
        ("/**", ["/", "/a", "/a/", "/a/b%20c"], []),
        ("/users/*", ["/users/1", "/users/a%20b"], ["/users", "/users/", "/users/1/", "/users/1/2"]),
        (
            "/users/*/posts",
            ["/users/1/posts"],
            ["/users//posts", "/users/posts", "/users/1/2/posts", "/users/1/posts/"],
        ),
        ("/users/*/", ["/users/1/"], ["/users/1", "/users//"]),
        ("/*/x/**", ["/a/x", "/a/x/", "/a/x/b"], ["/x", "/a/xy", "/a/b/x"]),
        ("/*", ["/a"], ["/", "/a/", "/a/b"]),
        ("/a.b+(c)", ["/a.b+(c)"], ["/aXb+(c)", "/a.bb(c)"]),
    ],
)
def test_p12_pattern_matches_its_paths_exactly(pattern: str, matching: list[str], other: list[str]) -> None:
    found = compile_pattern(pattern)

    assert [path for path in matching + other if found.matches(path)] == matching


@pytest.mark.parametrize(
    "text", ["", "admin", "/a/**/b", "/a*", "/***", "//a", "/a/../b", "/a b", "/a%20b", "/a?x", "/é"]
)
def test_pattern_that_could_never_match_is_refused_with_advice(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        compile_pattern(text)


@pytest.mark.parametrize(
    "wide, narrow, covered",
    [
        ("/**", "/", True),
        ("/**", "/a/*/**", True),
        ("/a/**", "/a", True),
        ("/a/**", "/a/", True),
        ("/a/**", "/a/**", True),
        ("/a/**", "/**", False),
        ("/a/**", "/ab", False),
        ("/a/*", "/a/b", True),
        ("/a/*", "/a/*", True),
        ("/a/*", "/a/", False),
        ("/a/*", "/a/**", False),
        ("/a/b", "/a/*", False),
        ("/*/b/**", "/a/b/c", True),
        ("/*/b/**", "/*/*/c", False),
        ("/a", "/a/", False),
    ],
)
def test_covering_pattern_is_told(wide: str, narrow: str, covered: bool) -> None:
    assert compile_pattern(wide).covers(compile_pattern(narrow)) is covered


SEGMENTS = st.lists(st.sampled_from(["a", "b", "*"]), max_size=3)
PATTERNS = st.builds(
    lambda segments, end: "/" + "/".join([*segments, end] if end is not None else segments),
    SEGMENTS,
    st.sampled_from([None, "", "**"]),
).filter(lambda text: "//" not in text)
PATHS = st.builds(
    lambda segments, slash: "/" + "/".join(segments) + ("/" if slash and segments else ""),
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=4),
    st.booleans(),
)


def naive_match(pattern: str, path: str) -> bool:
    wanted, given = pattern[1:].split("/"), path[1:].split("/")
    if wanted[-1] == "**":
        wanted = wanted[:-1]
        given = given[: len(wanted)] if len(given) >= len(wanted) else given
    return len(wanted) == len(given) and all(
        w == g or (w == "*" and g != "") for w, g in zip(wanted, given, strict=True)
    )


@settings(max_examples=500, deadline=None)
@given(PATTERNS, PATHS)
def test_pattern_matches_as_the_contract_words_it(pattern: str, path: str) -> None:
    assert compile_pattern(pattern).matches(path) == naive_match(pattern, path)


@settings(max_examples=500, deadline=None)
@given(PATTERNS, PATTERNS, PATHS)
def test_covered_pattern_never_matches_alone(wide: str, narrow: str, path: str) -> None:
    if compile_pattern(wide).covers(compile_pattern(narrow)) and compile_pattern(narrow).matches(path):
        assert compile_pattern(wide).matches(path)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_a_pattern_or_a_value_error(text: str) -> None:
    try:
        pattern = compile_pattern(text)
    except ValueError:
        return

    assert pattern.text == text
    assert pattern.covers(pattern)
