"""The Host field: one host, judged strictly."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.host import Host, parse_host
from gateway.errors import HostInvalid


@pytest.mark.parametrize(
    "raw, name, port",
    [
        (b"secure.example.com", "secure.example.com", None),
        (b"SECURE.Example.COM", "secure.example.com", None),
        (b"secure.example.com.", "secure.example.com", None),
        (b"secure.example.com.:8443", "secure.example.com", 8443),
        (b"secure.example.com:443", "secure.example.com", 443),
        (b"secure.example.com:", "secure.example.com", None),
        (b"localhost:0", "localhost", 0),
        (b"under_score:65535", "under_score", 65535),
        (b"127.0.0.1:80", "127.0.0.1", 80),
        (b"[::1]", "[::1]", None),
        (b"[0:0:0:0:0:0:0:1]:8080", "[::1]", 8080),
        (b"[2001:DB8::A]:1", "[2001:db8::a]", 1),
    ],
)
def test_p12_host_is_read_in_one_normal_form(raw: bytes, name: str, port: int | None) -> None:
    assert parse_host(raw) == Host(raw, name, port)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"a b",
        b" a",
        b"a ",
        b"good@evil",
        b"a/b",
        b"a,b",
        b"a?b",
        b"a#b",
        b"a%62",
        b"a\\b",
        b"[::1",
        b"::1",
        b"[::1]x",
        b"[]",
        b"[:::]",
        b"[fe80::1%25eth0]",
        b"[v1.a]",
        b"[1.2.3.4]",
        b":80",
        b".",
        b"..",
        b".a",
        b"a..b",
        b"a:b",
        b"a:65536",
        b"a:+80",
        b"a:80:80",
        b"a:000080",
        b"caf\xc3\xa9",
        b"a\n",
        b"a\x00",
        b"a" * 300,
    ],
)
def test_p12_what_is_no_host_is_refused(raw: bytes) -> None:
    with pytest.raises(HostInvalid):
        parse_host(raw)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=30), st.text("aZ09.-_:[]@/% ", max_size=20).map(str.encode)))
def test_any_octets_give_a_host_or_the_declared_error(raw: bytes) -> None:
    try:
        host = parse_host(raw)
    except HostInvalid:
        return

    assert host.raw == raw
    assert host.name == host.name.lower() != ""
    assert not host.name.endswith(".")
    assert parse_host(host.name.encode()).name == host.name
    assert host.port is None or 0 <= host.port <= 65535
