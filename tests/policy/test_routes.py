"""The route table: the first row that path, method and host match decides, and escapes choose no other row."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.model import Route
from gateway.credentials.kinds import CredentialKind
from gateway.edge.host import parse_host
from gateway.edge.target import parse_target
from gateway.errors import TargetInvalid
from gateway.policy.patterns import compile_pattern
from gateway.policy.routes import Auth, CompiledRoute, RouteTable
from provisioning.records import Role
from tests.policy.build import compiled, route, table
from tests.policy.test_patterns import PATHS, PATTERNS

SITE = table(
    route("/public/**", auth="none"),
    route("/admin", roles=["ADMIN"]),
    route("/users/*/posts", methods=["GET"]),
    route("/files/**", allow_encoded=["slash"]),
    route("/keys/*", allow_encoded=["slash", "percent"]),
    route("/**", auth="optional"),
)


def found(raw: bytes, routes: RouteTable = SITE, method: str = "GET") -> str | None:
    row = routes.find(method, "app.example.com", parse_target(raw))
    return None if row is None else row.name


def refusal_of(raw: bytes, routes: RouteTable = SITE) -> str:
    with pytest.raises(TargetInvalid) as refused:
        found(raw, routes)
    return refused.value.reason


@pytest.mark.parametrize(
    "raw, name",
    [
        (b"/public", "/public/**"),
        (b"/public/", "/public/**"),
        (b"/public/a/b", "/public/**"),
        (b"/publicity", "/**"),
        (b"/admin", "/admin"),
        (b"/admin/", "/**"),
        (b"/users/7/posts", "/users/*/posts"),
        (b"/users/7/", "/**"),
        (b"/", "/**"),
    ],
)
def test_path_finds_its_row(raw: bytes, name: str) -> None:
    assert found(raw) == name


def test_nothing_is_open_by_accident() -> None:
    assert found(b"/other", table(route("/public/**", auth="none"))) is None
    assert found(b"/a", table(route("/a", hosts=["other.example.com"]))) is None
    assert found(b"/a", table(route("/a", methods=["POST"]))) is None


@pytest.mark.parametrize("raw", [b"/a%2fb", b"/a%2Fb", b"/public/a%2fb", b"/admin%2f"])
def test_p03_encoded_slash_is_refused_by_default(raw: bytes) -> None:
    assert refusal_of(raw) == "path_slash_encoded"


@pytest.mark.parametrize(
    "lower, upper, name",
    [(b"/files/a%2fb", b"/files/a%2Fb", "/files/**"), (b"/keys/a%2fb", b"/keys/a%2Fb", "/keys/*")],
)
def test_p03_opened_slash_is_decided_alike_in_both_cases(lower: bytes, upper: bytes, name: str) -> None:
    assert found(lower) == found(upper) == name


@pytest.mark.parametrize("raw", [b"/ADMIN", b"/admin/", b"/admin%20", b"/Admin"])
def test_p12_path_is_exact_and_case_counts(raw: bytes) -> None:
    assert found(raw) == "/**"


@pytest.mark.parametrize("host", [b"SECURE.Example.COM", b"secure.example.com.", b"secure.example.com:443"])
def test_p12_host_in_any_spelling_finds_the_row_of_the_canonical_one(host: bytes) -> None:
    routes = table(route("/a", hosts=["Secure.example.com"], auth="none"), route("/a"))

    row = routes.match("GET", parse_host(host).name, "/a")

    assert row is routes.routes[0]


def test_p08_query_is_never_matched() -> None:
    assert found(b"/admin?x=/public/") == found(b"/admin?/../public") == "/admin"


@pytest.mark.parametrize("raw", [b"/%252e%252e", b"/files/a%252fb", b"/public/%2561"])
def test_p09_encoded_percent_is_refused_by_default(raw: bytes) -> None:
    assert refusal_of(raw) == "path_percent_encoded"


def test_p09_opened_percent_is_decoded_once_at_most() -> None:
    assert found(b"/keys/100%25") == found(b"/keys/%252e%252e") == "/keys/*"


@pytest.mark.parametrize("raw", [b"/%61dmin", b"/admi%6E", b"/%70ublic/x", b"/users/7/post%73", b"/%61%64%6d%69%6e"])
def test_p13_path_that_decodes_into_another_rows_is_refused(raw: bytes) -> None:
    assert refusal_of(raw) == "path_ambiguous"


def test_p13_escape_that_changes_no_decision_passes() -> None:
    assert found(b"/public/caf%C3%A9%20au%20lait") == "/public/**"
    assert found(b"/other/%7Ename") == "/**"


def test_p13_path_unknown_as_it_stands_but_known_decoded_is_refused() -> None:
    assert refusal_of(b"/%61dmin", table(route("/admin"))) == "path_ambiguous"


def test_head_counts_as_get_where_get_is_named() -> None:
    routes = table(route("/a", methods=["GET"]), route("/b", methods=["POST"]), route("/c", methods=["HEAD"]))

    assert found(b"/a", routes, "HEAD") == "/a"
    assert found(b"/b", routes, "HEAD") is None
    assert found(b"/c", routes, "GET") is None


def test_method_in_another_case_is_another_method() -> None:
    assert found(b"/a", table(route("/a", methods=["GET"])), "get") is None


def test_later_row_takes_what_an_earlier_one_leaves() -> None:
    routes = table(route("/a", methods=["GET"]), route("/*", methods=["POST"]), route("/**"))

    assert [found(b"/a", routes, method) for method in ("GET", "POST", "PUT")] == ["/a", "/*", "/**"]


def test_earlier_wildcard_row_wins_over_a_later_exact_one() -> None:
    routes = table(route("/a/**", auth="none"), route("/a/b"))

    assert found(b"/a/b", routes) == "/a/**"


def test_row_carries_what_the_settings_say() -> None:
    row = compiled(
        path="/reports/**",
        accept=["session", "agent_token"],
        roles=["ADMIN"],
        organization_roles=["org:admin", "member"],
        permissions=["org:reports:read", "reports:write"],
        scopes=["reports:read"],
        cross_site="allow",
        cors="upstream",
        strip_prefix="/reports",
    )

    assert row.auth is Auth.REQUIRED
    assert row.accepts == {CredentialKind.SESSION, CredentialKind.AGENT_TOKEN}
    assert row.roles == {Role.ADMIN}
    assert row.organization_roles == {"admin", "member"}
    assert row.permissions == {"org:reports:read", "org:reports:write"}
    assert row.scopes == ("reports:read",)
    assert (row.cross_site_allowed, row.cors_upstream, row.strip_prefix) == (True, True, "/reports")
    assert not row.demands_nothing


def test_row_without_rules_demands_nothing() -> None:
    row = compiled()

    assert row.demands_nothing
    assert row.accepts == {CredentialKind.SESSION, CredentialKind.API_TOKEN}


ROUTES = st.builds(
    lambda path, methods, hosts: route(path, methods=methods, hosts=hosts),
    PATTERNS,
    st.sampled_from([[], ["GET"], ["POST"], ["GET", "PUT"]]),
    st.sampled_from([[], ["a.example"], ["b.example"]]),
)


def naive_match(rows: list[Route], method: str, host: str, path: str) -> int | None:
    for index, row in enumerate(rows):
        methods = {*row.methods, *(["HEAD"] if "GET" in row.methods else [])}
        if (
            compile_pattern(row.path).matches(path)
            and (not methods or method in methods)
            and (not row.hosts or host in row.hosts)
        ):
            return index
    return None


@settings(max_examples=500, deadline=None)
@given(
    st.lists(ROUTES, max_size=8),
    st.sampled_from(["GET", "HEAD", "POST", "PUT"]),
    st.sampled_from(["a.example", "b.example"]),
    PATHS,
)
def test_shortcuts_change_no_match(rows: list[Route], method: str, host: str, path: str) -> None:
    row = RouteTable.compile(rows).match(method, host, path)

    assert (None if row is None else row.index) == naive_match(rows, method, host, path)


@settings(max_examples=300, deadline=None)
@given(st.lists(ROUTES, min_size=1, max_size=5), PATHS, st.data())
def test_p13_escaping_a_path_never_finds_another_row(rows: list[Route], path: str, data: st.DataObject) -> None:
    routes = RouteTable.compile(rows)
    chosen = data.draw(st.lists(st.booleans(), min_size=len(path), max_size=len(path)))
    escaped = "".join(f"%{ord(c):02x}" if escape and c != "/" else c for c, escape in zip(path, chosen, strict=True))
    plain: CompiledRoute | None = routes.find("GET", "a.example", parse_target(path.encode()))
    try:
        row = routes.find("GET", "a.example", parse_target(escaped.encode()))
    except TargetInvalid:
        return

    assert row is plain
