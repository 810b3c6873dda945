"""Forwarding fields are believed from listed peers alone."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.forwarded import ClientView, Forwarded, ForwardingTrust
from gateway.edge.host import parse_host

HOST = parse_host(b"app.example.com:8080")
TRUST = ForwardingTrust([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")])
PROXY = "10.0.0.9"
EVERYTHING = Forwarded(
    for_=(b"198.51.100.7",),
    proto=b"https",
    host=b"public.example.com",
    port=b"8443",
    request_id=b"from-the-proxy-1",
)


def view(forwarded: Forwarded, peer: str = PROXY) -> ClientView:
    return TRUST.read(peer, "http", HOST, forwarded)


def address_of(*values: bytes, peer: str = PROXY) -> str:
    return view(Forwarded(for_=values), peer).address


def test_trusted_peer_is_believed() -> None:
    assert view(EVERYTHING) == ClientView("198.51.100.7", "https", b"public.example.com", 8443, "from-the-proxy-1")


@pytest.mark.parametrize("peer", ["192.0.2.1", "11.0.0.1", "2001:db8::1", "", "not an address"])
@pytest.mark.parametrize(
    "forwarded",
    [
        EVERYTHING,
        Forwarded(for_=(b"10.0.0.1", b"198.51.100.7")),
        Forwarded(proto=b"https"),
        Forwarded(host=b"public.example.com"),
        Forwarded(port=b"443"),
        Forwarded(request_id=b"from-the-proxy-1"),
    ],
)
def test_f02_untrusted_peer_is_ignored_in_each_field_and_all(peer: str, forwarded: Forwarded) -> None:
    seen = view(forwarded, peer)

    assert seen == view(Forwarded(), peer)
    assert seen == ClientView("" if "n" in peer else peer, "http", b"app.example.com:8080", 8080, None)


def test_f02_nobody_is_trusted_without_networks() -> None:
    seen = ForwardingTrust([]).read("127.0.0.1", "https", parse_host(b"a"), EVERYTHING)

    assert seen == ClientView("127.0.0.1", "https", b"a", 443, None)


@pytest.mark.parametrize("proto", [b"https, http", b"javascript", b"", b"https ", b"HTTPS\xff", b"ftp"])
def test_f04_scheme_that_is_none_is_ignored(proto: bytes) -> None:
    assert view(Forwarded(proto=proto)).scheme == "http"


@pytest.mark.parametrize("proto, scheme", [(b"HTTPS", "https"), (b"http", "http"), (b"wss", "https"), (b"ws", "http")])
def test_f04_scheme_of_a_trusted_peer_is_read(proto: bytes, scheme: str) -> None:
    assert view(Forwarded(proto=proto)).scheme == scheme


@pytest.mark.parametrize(
    "values, address",
    [
        ((b"1.1.1.1, 10.0.0.1",), "1.1.1.1"),
        ((b"1.1.1.1", b"10.0.0.1"), "1.1.1.1"),
        ((b"6.6.6.6, 1.1.1.1 ,10.0.0.1",), "1.1.1.1"),
        ((b"unknown, 1.1.1.1",), "1.1.1.1"),
        ((b'"junk;, 1.1.1.1:5123',), "1.1.1.1"),
        ((b"[2001:db8::7]:443, fd00::1",), "2001:db8::7"),
        ((b"2001:DB8:0::7",), "2001:db8::7"),
        ((b"::ffff:1.1.1.1",), "1.1.1.1"),
        ((b"2.2.2.2, ::ffff:10.1.1.1",), "2.2.2.2"),
        ((b"10.0.0.3, 10.0.0.2",), "10.0.0.3"),
    ],
)
def test_f05_client_is_the_first_untrusted_hop_from_the_right(values: tuple[bytes, ...], address: str) -> None:
    assert address_of(*values) == address


@pytest.mark.parametrize(
    "value",
    [
        b"unknown",
        b'"::1"',
        b'for="1.1.1.1"',
        b"",
        b",",
        b"1.1.1.1,",
        b"1.1.1.256",
        b"01.1.1.1",
        b"fe80::1%eth0",
        b"1.1.1.1 10.0.0.1",
        b"[1.1.1.1",
        b"\xff\xfe",
        b"unknown, 10.0.0.1",
        b"1.1.1.1:port",
    ],
)
def test_f05_unreadable_hop_gives_the_peer(value: bytes) -> None:
    assert address_of(value) == PROXY


def test_f05_two_hundred_hops_are_walked() -> None:
    assert address_of(b", ".join([b"9.9.9.9", b"1.1.1.1", *[b"10.0.0.%d" % n for n in range(200)]])) == "1.1.1.1"


def test_f05_absent_field_gives_the_peer() -> None:
    assert address_of() == PROXY


def test_f05_peer_on_a_dual_stack_socket_is_the_ipv4_address_of_the_settings() -> None:
    assert address_of(b"1.1.1.1", peer="::ffff:10.0.0.9") == "1.1.1.1"
    assert address_of(b"1.1.1.1", peer="::ffff:192.0.2.1") == "192.0.2.1"


@pytest.mark.parametrize("everybody", ["0.0.0.0/0", "::/0"])
def test_f06_network_of_everybody_is_refused(everybody: str) -> None:
    with pytest.raises(ValueError, match="trust every client"):
        ForwardingTrust([ipaddress.ip_network(everybody)])


@pytest.mark.parametrize("host", [b"a b", b"good@evil", b"a.example, b.example", b""])
def test_told_host_that_is_none_is_ignored(host: bytes) -> None:
    assert view(Forwarded(host=host)).host == HOST.raw


@pytest.mark.parametrize(
    "forwarded, port",
    [
        (Forwarded(port=b"443"), 443),
        (Forwarded(port=b"0"), 8080),
        (Forwarded(port=b"65536"), 8080),
        (Forwarded(port=b"-1"), 8080),
        (Forwarded(port=b"443, 80"), 8080),
        (Forwarded(host=b"a:81"), 81),
        (Forwarded(host=b"a:81", port=b"82"), 82),
        (Forwarded(host=b"a", proto=b"https"), 443),
        (Forwarded(host=b"a", proto=b"http"), 80),
    ],
)
def test_port_is_the_told_one_else_the_hosts_else_the_schemes(forwarded: Forwarded, port: int) -> None:
    assert view(forwarded).port == port


@pytest.mark.parametrize("request_id", [b"x" * 129, b"has space here", b"line\r\nbreak", b"caf\xc3\xa9-caf", b""])
def test_request_id_that_could_forge_a_log_line_is_ignored(request_id: bytes) -> None:
    assert view(Forwarded(request_id=request_id)).request_id is None


MAYBE = st.one_of(st.none(), st.binary(max_size=30))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=20), st.text("0123456789abcdef.:[], ", max_size=30).map(str.encode))),
    MAYBE,
    MAYBE,
    MAYBE,
    MAYBE,
)
def test_any_octets_give_a_view_that_is_safe_to_forward(
    for_: list[bytes], proto: bytes | None, host: bytes | None, port: bytes | None, request_id: bytes | None
) -> None:
    seen = view(Forwarded(tuple(for_), proto, host, port, request_id))

    assert str(ipaddress.ip_address(seen.address)) == seen.address
    assert seen.scheme in {"http", "https"}
    assert parse_host(seen.host).raw == seen.host
    assert 0 < seen.port <= 65535
    assert seen.request_id is None or seen.request_id.isprintable()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.ip_addresses(v=4), max_size=5), st.ip_addresses(v=4, network="198.51.100.0/24"))
def test_f05_client_cannot_choose_its_own_address(
    invented: list[ipaddress.IPv4Address], real: ipaddress.IPv4Address
) -> None:
    assert address_of(", ".join([*map(str, invented), str(real), "10.0.0.1"]).encode()) == str(real)
