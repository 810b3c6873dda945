"""The package for upstreams: what it believes, and what it does while the gateway's keys are away."""

import asyncio
import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorgate_upstream import Actor, AssertionInvalid, AssertionMissing, Keys, KeysUnavailable, Organization, Verifier
from actorgate_upstream.keys import parse_keys
from provisioning.signing_key import new_key
from tests.sdk.asserted import ISSUER, Gateway, hs256

URL = f"{ISSUER}/.well-known/jwks.json"


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def verifier(gateway: Gateway) -> Verifier:
    return verifier_of(gateway)


def verifier_of(gateway: Gateway) -> Verifier:
    keys = Keys(URL, fetch=gateway.document, monotonic=gateway.monotonic)
    return Verifier(issuer=ISSUER, audience="app", keys=keys)


async def test_a_good_assertion_gives_the_actor(gateway: Gateway, verifier: Verifier) -> None:
    actor = await verifier.verify(gateway.assertion(act={"sub": "user_2support"}))

    assert (actor.id, actor.role, actor.auth, actor.session_id) == ("usr_1", "USER", "session", "sess_1")
    assert actor.organization == Organization("org_1", "admin", frozenset({"org:reports:read"}))
    assert actor.impersonator_id == "user_2support"
    assert actor.may("anything")


async def test_scopes_limit_a_token(gateway: Gateway, verifier: Verifier) -> None:
    actor = await verifier.verify(gateway.assertion(scopes=["reports:read"], token_id="atk_1", auth="api_token"))

    assert actor.may("reports:read")
    assert not actor.may("reports:write")
    assert actor.token_id == "atk_1"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"iss": f"{ISSUER}/"},
        {"aud": "other"},
        {"aud": ["app", "other"]},
        {"aud": None},
        {"exp": 1_600_000_000},
        {"exp": None},
        {"iat": 4_000_000_000},
        {"sub": None},
        {"org": None},
        {"org": "org_1"},
        {"scopes": "reports:read"},
        {"role": 1},
    ],
    ids=str,
)
async def test_an_assertion_that_says_anything_else_is_refused(
    gateway: Gateway, verifier: Verifier, changes: dict[str, Any]
) -> None:
    with pytest.raises(AssertionInvalid):
        await verifier.verify(gateway.assertion(**changes))


async def test_other_algorithms_and_keys_are_refused(gateway: Gateway, verifier: Verifier) -> None:
    good = gateway.assertion()
    claims, kid = jwt.decode(good, options={"verify_signature": False}), gateway.keys[0].kid
    secret = json.dumps(gateway.keys[0].jwk).encode()
    forged = (
        jwt.encode(claims, "", algorithm="none", headers={"kid": kid}),
        hs256(good, secret, kid),
        jwt.encode(claims, new_key(0, 0).private_key, algorithm="ES256", headers={"kid": kid}),
        good[:-8] + ("A" * 8 if good[-8:] != "A" * 8 else "B" * 8),
        good.rpartition(".")[0] + ".",
    )
    for assertion in forged:
        with pytest.raises(AssertionInvalid):
            await verifier.verify(assertion)


@given(st.text(max_size=60))
def test_junk_is_refused_without_asking_for_keys(text: str) -> None:
    gateway = Gateway()
    with pytest.raises(AssertionInvalid):
        asyncio.run(verifier_of(gateway).verify(text))

    assert gateway.asked == 0


async def test_missing_and_doubled_assertions(gateway: Gateway, verifier: Verifier) -> None:
    good = gateway.assertion()
    for nothing in ([], [""]):
        with pytest.raises(AssertionMissing):
            await verifier.verify_fields(nothing)
        assert await verifier.verify_fields(nothing, optional=True) is None
    for wrong in ([good, good], ["", good], ["junk"]):
        with pytest.raises(AssertionInvalid):
            await verifier.verify_fields(wrong, optional=True)


async def test_keys_are_fetched_once_for_all_who_wait(gateway: Gateway, verifier: Verifier) -> None:
    actors = await asyncio.gather(*(verifier.verify(gateway.assertion(jti=str(n))) for n in range(20)))

    assert len(actors) == 20
    assert gateway.asked == 1


async def test_a_new_key_is_asked_for_once(gateway: Gateway, verifier: Verifier) -> None:
    await verifier.verify(gateway.assertion())
    gateway.now += 10
    gateway.keys.append(new_key(0, 0))
    await asyncio.gather(*(verifier.verify(gateway.assertion(jti=str(n))) for n in range(5)))
    stranger = new_key(0, 0)
    for number in range(5):
        with pytest.raises(AssertionInvalid, match="kid unknown"):
            await verifier.verify(gateway.assertion(key=stranger, jti=str(number)))

    assert gateway.asked == 2


async def test_a_key_that_is_gone_is_believed_no_more_also_for_what_was_verified(
    gateway: Gateway, verifier: Verifier
) -> None:
    assertion = gateway.assertion()
    await verifier.verify(assertion)
    gateway.keys[:] = [new_key(0, 0)]
    gateway.now += 301
    await verifier.verify(gateway.assertion())  # its kid is unknown: the keys are fetched

    with pytest.raises(AssertionInvalid):
        await verifier.verify(assertion)


async def test_while_the_gateway_is_away_known_keys_serve_for_an_hour(gateway: Gateway, verifier: Verifier) -> None:
    await verifier.verify(gateway.assertion())
    gateway.away = True
    gateway.now += 3500
    assert isinstance(await verifier.verify(gateway.assertion(jti="2")), Actor)
    await asyncio.sleep(0.01)  # the refresh fails in the background

    with pytest.raises(KeysUnavailable):
        await verifier.verify(gateway.assertion(key=new_key(0, 0)))
    gateway.now += 3700
    with pytest.raises(KeysUnavailable):
        await verifier.verify(gateway.assertion(jti="3"))


async def test_without_keys_nobody_is_judged_until_the_gateway_is_back(gateway: Gateway, verifier: Verifier) -> None:
    gateway.away = True
    for _ in range(3):
        with pytest.raises(KeysUnavailable):
            await verifier.verify(gateway.assertion())
    asked = gateway.asked
    gateway.away = False
    gateway.now += 10

    assert (await verifier.verify(gateway.assertion())).id == "usr_1"
    assert asked == 1


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": [1, {"kty": "EC"}]}', b"<html>"])
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):
        parse_keys(document)


def test_keys_for_something_else_are_left_out() -> None:
    good = new_key(0, 0).jwk
    others = [
        {**new_key(0, 0).jwk, "alg": "ES384"},
        {**new_key(0, 0).jwk, "use": "enc"},
        {**new_key(0, 0).jwk, "y": "AA"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "o", "alg": "HS256"},
    ]

    assert list(parse_keys(json.dumps({"keys": [*others, good]}).encode())) == [good["kid"]]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/", ""])
def test_keys_come_over_http_alone(url: str) -> None:
    with pytest.raises(ValueError):
        Keys(url)
