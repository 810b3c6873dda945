"""Which targets and hosts pass, and that what was judged is what goes up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.wire import bearer, connected, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS = {
    "routes": [
        {"path": "/public/**", "auth": "none", "upstream": "app"},
        {"path": "/slashes/**", "auth": "none", "upstream": "app", "allow_encoded": ["slash"]},
        {"path": "/percents/**", "auth": "none", "upstream": "app", "allow_encoded": ["percent"]},
        {"path": "/admin/**", "auth": "required", "roles": ["ADMIN"], "upstream": "app"},
        {"path": "/hosted/**", "auth": "none", "hosts": ["secure.example.com"], "upstream": "app"},
        {"path": "/exact", "auth": "none", "upstream": "app"},
        {"path": "/prefixed/**", "auth": "none", "strip_prefix": "/prefixed", "upstream": "app"},
    ]
}


async def refused(gateway: GatewayUnderTest, target: str) -> None:
    """Ask for a target that must not pass, and see that nothing else comes of its connection."""
    async with gateway.wire() as wire:
        reply = await wire.ask(f"GET {target} HTTP/1.1\r\nHost: app.example.test\r\n\r\n".encode("latin-1"))

        assert (reply.status, reply.code) == (400, "target_invalid")
        assert await wire.closed()
    assert gateway.upstream.received == []


@pytest.mark.parametrize("target", ["/public/../admin", "/public/./x", "/public/..", "/..", "/./public/x"])
async def test_p01_dot_segment_is_refused(gateway: GatewayUnderTest, target: str) -> None:
    await refused(gateway, target)


@pytest.mark.parametrize(
    "target", ["/public/%2e%2e/admin", "/public/.%2e/admin", "/public/%2E./admin", "/public/a%2eb"]
)
async def test_p02_encoded_dot_is_refused(gateway: GatewayUnderTest, target: str) -> None:
    await refused(gateway, target)


@pytest.mark.parametrize("target", ["/public/a%2fb", "/public/a%2Fb", "/public/a%5cb", "/public/a%5Cb"])
async def test_p03_encoded_slash_and_backslash_are_refused(gateway: GatewayUnderTest, target: str) -> None:
    await refused(gateway, target)


@pytest.mark.parametrize("target", ["/slashes/a%2fb", "/slashes/a%2Fb"])
async def test_p03_opened_slash_is_forwarded_as_it_came_in_both_cases(gateway: GatewayUnderTest, target: str) -> None:
    reply = await gateway.get(target)

    assert reply.status == 200
    assert gateway.upstream.last.target == target.encode()


@pytest.mark.parametrize(
    "target", ["/slashes/..%2fadmin", "/slashes/%2f/admin", "/slashes/a%5cb", "/slashes%2f..%2fadmin"]
)
async def test_p03_opened_slash_hides_no_segment(gateway: GatewayUnderTest, target: str) -> None:
    await refused(gateway, target)


@pytest.mark.parametrize("target", ["//admin/x", "/public//b", "///", "//evil.example/x", "//169.254.169.254/latest"])
async def test_p04_empty_segment_is_refused(gateway: GatewayUnderTest, target: str) -> None:
    await refused(gateway, target)


@pytest.mark.parametrize("target", ["/admin;x=1", "/public/..;/admin", "/admin%3b", "/public/;/x"])
async def test_p05_path_parameter_is_refused(gateway: GatewayUnderTest, target: str) -> None:
    await refused(gateway, target)


@pytest.mark.parametrize(
    "target", ["/public\\..\\admin", "/public/a%00", "/public/a%0d%0aX:y", "/public/a%zz", "/public/a%", "/public/%4"]
)
async def test_p06_backslash_control_and_broken_escape_are_refused(gateway: GatewayUnderTest, target: str) -> None:
    await refused(gateway, target)


@pytest.mark.parametrize("octet", ["\x00", "\x01", "\t", "\x0b", "\x1f", "\x7f", "\x80", " "])
@pytest.mark.parametrize("target", ["/public/a{}b", "/public/{}b", "/public/x?a={}b"])
async def test_p06_bare_control_or_blank_is_refused(gateway: GatewayUnderTest, target: str, octet: str) -> None:
    await refused(gateway, target.format(octet))


@pytest.mark.parametrize("target", ["/public/secret#/bar", "/public/x%23y", "/public/x?q#f"])
async def test_p07_fragment_is_refused(gateway: GatewayUnderTest, target: str) -> None:
    await refused(gateway, target)


@pytest.mark.parametrize("target", ["/admin?x=/public/", "/admin?/../public", "/admin?", "/admin/x?a;b|c%zz"])
async def test_p08_query_decides_nothing(gateway: GatewayUnderTest, target: str) -> None:
    reply = await gateway.get(target, bearer(mint_token()))

    assert reply.status == 403
    assert reply.code == "forbidden"


@pytest.mark.parametrize("query", ["?", '?a=%2e%2e/%zz;b|c\\d&e=<>"{}^`', "?a=b=c&&a=%00", "?//x/../y"])
async def test_p08_query_is_forwarded_byte_for_byte(gateway: GatewayUnderTest, query: str) -> None:
    reply = await gateway.get(f"/public/x{query}")

    assert reply.status == 200
    assert gateway.upstream.last.target == f"/public/x{query}".encode()


@pytest.mark.parametrize("target", ["/public/%252e%252e/admin", "/public/a%252fb", "/public/%25"])
async def test_p09_encoded_percent_is_refused(gateway: GatewayUnderTest, target: str) -> None:
    await refused(gateway, target)


async def test_p09_opened_percent_is_forwarded_as_it_came(gateway: GatewayUnderTest) -> None:
    await gateway.get("/percents/%252e%252e")

    assert gateway.upstream.last.target == b"/percents/%252e%252e"


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://evil.example/public/x HTTP/1.1",
        b"GET http://u:p@app.example.test/public/x HTTP/1.1",
        b"GET https:/x HTTP/1.1",
        b"GET * HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT app.example.test:443 HTTP/1.1",
        b"GET  HTTP/1.1",
        b"GET public/x HTTP/1.1",
        b"GET evil.example HTTP/1.1",
    ],
)
async def test_p10_r01_other_forms_of_target_are_refused_and_dial_nobody(
    gateway: GatewayUnderTest, line: bytes
) -> None:
    async with gateway.wire() as wire:
        reply = await wire.ask(line + b"\r\nHost: app.example.test\r\n\r\n")

        assert (reply.status, reply.code) in ((400, "target_invalid"), (405, "method_not_allowed"))
        assert await wire.closed()
    assert gateway.upstream.received == []


@pytest.mark.parametrize("version", ["http/1.1", "HTCPCP/1.0", "HTTP /1.1"])
async def test_what_is_no_version_is_not_the_targets_fault(gateway: GatewayUnderTest, version: str) -> None:
    reply = await gateway.ask(f"GET /public/x {version}\r\nHost: app.example.test\r\n\r\n".encode())

    assert (reply.status, reply.code) == (400, "request_malformed")


@pytest.mark.parametrize("target", ["/public/\xe9", "/public/\xc0\xae\xc0\xae/admin"])
async def test_p11_raw_high_octets_are_refused(gateway: GatewayUnderTest, target: str) -> None:
    await refused(gateway, target)


@pytest.mark.parametrize("target", ["/public/%c0%ae%c0%ae/admin", "/public/%ef%bc%8e%ef%bc%8e/admin"])
async def test_p11_overlong_and_fullwidth_dots_stay_opaque(gateway: GatewayUnderTest, target: str) -> None:
    reply = await gateway.get(target)

    assert reply.status == 200
    assert gateway.upstream.last.target == target.encode()


@pytest.mark.parametrize(
    "host", ["secure.example.com", "SECURE.Example.COM", "secure.example.com.", "secure.example.com:443"]
)
async def test_p12_host_in_any_spelling_falls_under_the_same_rule(gateway: GatewayUnderTest, host: str) -> None:
    reply = await gateway.ask(request("/hosted/x", host=host))

    assert reply.status == 200
    assert gateway.upstream.last.one("host") == host


@pytest.mark.parametrize("host", ["a b", "good@evil", "[::1", "", "a/b", "secure.example.com,evil.example", "a\tb"])
async def test_p12_what_is_no_host_is_refused(gateway: GatewayUnderTest, host: str) -> None:
    reply = await gateway.ask(request("/public/x", host=host))

    assert reply.status == 400
    assert gateway.upstream.received == []


async def test_p12_another_host_finds_no_rule(gateway: GatewayUnderTest) -> None:
    reply = await gateway.ask(request("/hosted/x", host="secure.example.com.evil.example"))

    assert reply.status == 404


@pytest.mark.parametrize("target", ["/EXACT", "/exact/", "/exact%20", "/Exact", "/exact/x"])
async def test_p12_path_is_exact_and_case_counts(gateway: GatewayUnderTest, target: str) -> None:
    reply = await gateway.get(target)

    assert reply.status == 404
    assert reply.code == "not_found"
    assert gateway.upstream.received == []


@pytest.mark.parametrize("target", ["/%61dmin", "/%61dmin/x", "/users/%63urrent", "/publi%63/x"])
async def test_p13_path_that_decodes_into_another_rule_is_refused(gateway: GatewayUnderTest, target: str) -> None:
    await refused(gateway, target)


SEGMENT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=12).filter(
    lambda text: text != "\x7f"
)


@given(st.lists(st.one_of(SEGMENT, st.sampled_from(["%2e", "..", "%2f", "%25", "a", "%61", "?", ";"])), max_size=5))
@settings(max_examples=150, deadline=None)
async def test_p13_what_is_matched_is_what_is_forwarded(module_gateway: GatewayUnderTest, segments: list[str]) -> None:
    target = "/public/" + "/".join(segments)
    seen = module_gateway.upstream.received
    seen.clear()

    reply = await module_gateway.get(target)

    if reply.status == 200:
        assert [received.target for received in seen] == [target.encode("latin-1")]
    else:
        assert reply.status == 400
        assert seen == []


async def test_prefix_is_taken_off_the_path_alone(gateway: GatewayUnderTest) -> None:
    for target, forwarded in [
        ("/prefixed/a?b=/prefixed", b"/a?b=/prefixed"),
        ("/prefixed", b"/"),
        ("/prefixed/", b"/"),
        ("/prefixed?q", b"/?q"),
        ("/prefixed/prefixed/x", b"/prefixed/x"),
    ]:
        await gateway.get(target)

        assert gateway.upstream.last.target == forwarded


@pytest.mark.parametrize("agent", ["GoogleHC/1.0", "kube-probe/1.2", "ELB-HealthChecker/2.0"])
async def test_f01_health_checkers_are_nobody_special(database_url: str, agent: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        for target in ("/healthz", "/readyz", "/metrics", "/x"):
            reply = await gateway.get(target, f"User-Agent: {agent}")

            assert reply.status == 401


@pytest.mark.parametrize("target", ["/healthz", "/readyz", "/metrics", "/debug/explain", "/decisions/nginx", "/auth"])
async def test_m01_f07_operators_and_decision_endpoints_are_not_on_the_public_port(
    gateway: GatewayUnderTest, target: str
) -> None:
    reply = await gateway.get(target)

    assert reply.status == 404


async def test_m01_public_paths_are_not_on_the_admin_port(gateway: GatewayUnderTest) -> None:
    async with connected(gateway.admin_port) as wire:
        reply = await wire.ask(request("/public/x", "Connection: close"))

    assert reply.status == 404
    assert gateway.upstream.received == []


async def test_only_configured_hosts_are_served(database_url: str) -> None:
    async with gateway_under_test(database_url, hosts=["app.example.test"]) as gateway:
        served = await gateway.ask(request("/public/x", host="APP.example.test.:8080"))
        other = await gateway.ask(request("/public/x", host="evil.example"))

    assert served.status == 200
    assert other.status == 421
    assert other.code == "host_unknown"
