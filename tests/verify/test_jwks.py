"""Which entries of a key set may sign."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from gateway.verify.jwks import parse_jwks
from tests.support.clerk_keys import ABSENT, jwk, jwks, key_pair

GOOD = jwk(kid="good")


def _elliptic() -> dict[str, Any]:
    return {**ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True), "kid": "odd"}


def _private() -> dict[str, Any]:
    return {**RSAAlgorithm.to_jwk(key_pair("odd"), as_dict=True), "kid": "odd"}


def test_key_may_leave_out_use_and_algorithm() -> None:
    assert list(parse_jwks(jwks(jwk(kid="a", use=ABSENT, alg=ABSENT)))) == ["a"]


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": "AAAA", "kid": "odd"},
        _elliptic(),
        _private(),
        jwk("odd", "odd", d="AAAA"),
        jwk("odd", "odd", use="enc"),
        jwk("odd", "odd", key_ops=["encrypt"]),
        jwk("odd", "odd", key_ops="verify"),
        jwk("odd", "odd", alg="RS512"),
        jwk("odd", "odd", alg="HS256"),
        jwk("odd", "odd", alg=None, n=1),
        jwk("odd", "odd", n=""),
        jwk("odd", "odd", n="!!"),
        jwk("odd", "odd", e=ABSENT),
        jwk("odd", "odd", e="Ag"),
        jwk("odd", "odd", n=ABSENT),
        jwk("odd", ABSENT),
        jwk("odd", kid=["odd"]),  # type: ignore[arg-type]  # what a server may send
        jwk("small", "odd", n=RSAAlgorithm.to_jwk(key_pair("small", 1024).public_key(), as_dict=True)["n"]),
        "text",
        None,
        [],
    ],
)
def test_k05_entry_that_must_not_sign_is_skipped(entry: Any) -> None:
    assert list(parse_jwks(json.dumps({"keys": [entry, GOOD]}).encode())) == ["good"]


def test_k05_two_keys_under_one_name_are_both_dropped() -> None:
    keys = parse_jwks(jwks(jwk("one", "same"), GOOD, jwk("two", "same")))

    assert list(keys) == ["good"]


def test_k05_the_same_key_twice_is_one_key() -> None:
    assert list(parse_jwks(jwks(GOOD, GOOD))) == ["good"]


def test_unusable_entry_does_not_shadow_a_key_of_its_name() -> None:
    assert list(parse_jwks(jwks({"kty": "oct", "k": "AA", "kid": "good"}, GOOD))) == ["good"]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b"\xff", b"[" * 100_000]
)
def test_what_holds_no_key_is_refused(body: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parse_jwks(body)


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.lists(st.text(max_size=3), max_size=2)


@settings(max_examples=200)
@given(st.lists(st.dictionaries(st.sampled_from(["kty", "kid", "n", "e", "alg", "use", "key_ops"]), VALUES)))
def test_any_entries_are_skipped_or_read(entries: list[dict[str, object]]) -> None:
    listed = [GOOD, *({"kty": "RSA", **entry} for entry in entries)]
    keys = parse_jwks(json.dumps({"keys": listed}).encode())

    assert "good" in keys
