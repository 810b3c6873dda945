"""Which session tokens sign in, end to end; `tests/verify` holds the rules one by one."""

import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.clerk_keys import ABSENT, AUTHORIZED_PARTY, ISSUER, KID, encode, key_pair, sign
from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.wire import Reply, bearer

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS = {
    "routes": [
        {"path": "/pending/**", "auth": "required", "allow_pending": True, "upstream": "app"},
        {"path": "/admins/**", "auth": "required", "organization_roles": ["admin"], "upstream": "app"},
        {"path": "/**", "auth": "required", "upstream": "app"},
    ]
}


async def refused(gateway: GatewayUnderTest, token: str) -> Reply:
    """Ask with a token that must be refused as invalid."""
    reply = await gateway.get("/x", bearer(token))

    assert reply.status == 401
    assert reply.challenge.error == "invalid_token"
    assert gateway.upstream.received == []
    return reply


def parts() -> list[str]:
    return mint_token().split(".")


def payload(**claims: Any) -> dict[str, Any]:
    now = int(time.time())
    standard = {"iss": ISSUER, "sub": "user_2payload", "azp": AUTHORIZED_PARTY, "iat": now, "exp": now + 60, "v": 2}
    return standard | claims


HEADER = json.dumps({"alg": "RS256", "typ": "JWT", "kid": KID})


async def test_j01_altered_token_is_refused(gateway: GatewayUnderTest) -> None:
    head, body, signature = parts()
    other = encode(json.dumps(payload(sub="user_2victim")).encode())

    for token in (
        f"{head}.{other}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{body}.{signature[:-2]}",
    ):
        await refused(gateway, token)


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "", "HS256", "RS384", "PS256", "ES256", "rs256", 5, None])
async def test_j02_algorithm_is_never_the_tokens_choice(gateway: GatewayUnderTest, alg: object) -> None:
    await refused(gateway, mint_token(header={"alg": alg}))


async def test_j02_public_key_is_no_shared_secret(gateway: GatewayUnderTest) -> None:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    secret = key_pair().public_key().public_bytes(encoding, form)
    signed = f"{encode(json.dumps({'alg': 'HS256', 'kid': KID}).encode())}.{encode(json.dumps(payload()).encode())}"

    await refused(gateway, f"{signed}.{encode(hmac.digest(secret, signed.encode(), hashlib.sha256))}")


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
async def test_j03_key_material_of_the_token_is_never_fetched(gateway: GatewayUnderTest, name: str) -> None:
    fetches, elsewhere = gateway.jwks.fetches, gateway.jwks.elsewhere
    address = gateway.jwks.url.replace("/.well-known/", "/attacker/")

    await refused(gateway, mint_token(key="attacker", kid="ins_unheard", header={name: address}))

    assert gateway.jwks.elsewhere == elsewhere
    assert gateway.jwks.fetches <= fetches + 1


@pytest.mark.parametrize("kid", ["../../dev/null", "' OR 1=1", "x" * 10_000, ["a"], ABSENT, "", None, 5, "a\nb"])
async def test_j04_odd_key_id_is_refused(gateway: GatewayUnderTest, kid: object) -> None:
    await refused(gateway, mint_token(kid=kid))


@pytest.mark.parametrize(
    "token",
    [
        sign(HEADER, '{"sub":"user_1","sub":"user_2"}'),
        sign('{"alg":"RS256","alg":"RS256","kid":"ins_2testInstance"}', json.dumps(payload())),
        sign(HEADER, "[1,2]"),
        sign(HEADER, '"text"'),
        sign(HEADER, "null"),
        sign(HEADER, json.dumps(payload())) + "=",
        sign(HEADER, json.dumps(payload())).replace(".", "=.", 1),
        f"{encode(HEADER.encode())}.{encode(bytes([0xFF, 0xFE]))}.AAAA",
    ],
    ids=range(8),
)
async def test_j05_text_with_two_readings_is_refused(gateway: GatewayUnderTest, token: str) -> None:
    await refused(gateway, token)


@pytest.mark.parametrize(
    "header", [{"crit": ["exp"]}, {"crit": ["b64"], "b64": False}, {"zip": "DEF"}, {"enc": "A256GCM"}]
)
async def test_j06_parameters_that_change_the_meaning_are_refused(
    gateway: GatewayUnderTest, header: dict[str, object]
) -> None:
    await refused(gateway, mint_token(header=header))


@pytest.mark.parametrize("token", ["a.b.c.d.e", "a.b.c.d", "a.b", ".", "..", ". . ."])
async def test_j06_other_forms_than_three_parts_are_refused(gateway: GatewayUnderTest, token: str) -> None:
    reply = await gateway.get("/x", bearer(token))

    assert reply.status == (400 if " " in token else 401)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": ABSENT},
        {"exp": int(time.time()) - 10},
        {"exp": str(int(time.time()) + 60)},
        {"nbf": int(time.time()) + 600},
        {"iat": int(time.time()) + 600},
        {"exp": True},
    ],
    ids=["absent", "past", "text", "nbf ahead", "iat ahead", "boolean"],
)
async def test_j07_token_outside_its_time_is_refused(gateway: GatewayUnderTest, claims: dict[str, Any]) -> None:
    await refused(gateway, mint_token(**claims))


@pytest.mark.parametrize("issuer", [ABSENT, ISSUER[:-1], ISSUER + "/", ISSUER + ".evil.example", "", None, [ISSUER]])
async def test_j08_issuer_is_exact(gateway: GatewayUnderTest, issuer: object) -> None:
    await refused(gateway, mint_token(iss=issuer))


@pytest.mark.parametrize(
    "claims", [{"azp": ABSENT}, {"azp": "https://evil.example"}, {"azp": ""}, {"aud": 5}, {"azp": 5}]
)
async def test_j09_authorized_party_is_exact_and_the_audience_a_text(
    gateway: GatewayUnderTest, claims: dict[str, Any]
) -> None:
    await refused(gateway, mint_token(**claims))


async def test_j09_cookie_without_authorized_party_signs_in_as_clerk_mints_it(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/x", f"Cookie: __session={mint_token(azp=ABSENT)}; __client_uat=1")

    assert reply.status == 200


@pytest.mark.parametrize("exp", ["1e300", "1e999", "NaN", "-1", "9223372036854775808", "1" * 5000, "Infinity"])
async def test_j10_absurd_expiry_is_refused(gateway: GatewayUnderTest, exp: str) -> None:
    text = json.dumps(payload(exp=0)).replace('"exp": 0', f'"exp": {exp}')

    await refused(gateway, sign(HEADER, text))


@pytest.mark.parametrize("claim", ["[" * 4000 + "]" * 4000, '{"a":' * 1500 + "1" + "}" * 1500])
async def test_j10_deep_nesting_is_refused_or_ignored(gateway: GatewayUnderTest, claim: str) -> None:
    text = json.dumps(payload(deep=0)).replace('"deep": 0', f'"deep": {claim}')

    reply = await gateway.get("/x", bearer(sign(HEADER, text)))

    assert reply.status in (200, 401)


@pytest.mark.parametrize("token", ["." * 20_000, "A" * 20_000, "A" * 16_385])
async def test_j11_long_token_is_refused_by_its_length(gateway: GatewayUnderTest, token: str) -> None:
    await refused(gateway, token)


@pytest.mark.parametrize("token", ["A" * 1_000_000, "." * 100_000])
async def test_j11_token_over_the_limit_of_heads_is_refused_with_its_head(
    gateway: GatewayUnderTest, token: str
) -> None:
    reply = await gateway.get("/x", bearer(token))

    assert reply.status == 431
    assert reply.code == "head_too_large"


async def test_j11_long_token_with_many_permissions_signs_in(gateway: GatewayUnderTest) -> None:
    listed = [f"org:feature:permission_{number}" for number in range(250)]
    token = mint_token(v=ABSENT, org_id="org_2many", org_role="org:member", org_permissions=listed)

    reply = await gateway.get("/x", bearer(token))

    assert 10_000 < len(token) < 16_384
    assert reply.status == 200
    assert gateway.upstream.last.one("x-organization-permissions") == " ".join(listed)


async def test_j12_pending_session_is_told_so_and_makes_nobody_known(gateway: GatewayUnderTest) -> None:
    before = await gateway.metric("gateway_provisioned_users_total")

    reply = await gateway.get("/x", bearer(mint_token(sts="pending", sub="user_2pending")))

    assert reply.status == 401
    assert reply.code == "session_pending"
    assert await gateway.metric("gateway_provisioned_users_total") == before


async def test_j12_pending_session_passes_only_where_the_route_allows_it(gateway: GatewayUnderTest) -> None:
    token = mint_token(sts="pending", sub="user_2choosing")

    allowed = await gateway.get("/pending/x", bearer(token))
    elsewhere = await gateway.get("/x", bearer(token))

    assert allowed.status == 200
    assert elsewhere.status == 401
    assert elsewhere.code == "session_pending"


@pytest.mark.parametrize(
    "token",
    [
        mint_token(sub="mch_2machine", sid=ABSENT),
        mint_token(header={"typ": "at+jwt"}),
        mint_token(header={"typ": "application/at+jwt"}),
        mint_token(header={"cat": "cl_B7d4PD333AAA"}),
        mint_token(header={"cat": "cl_B7d4PD222AAA"}, sid=ABSENT),
        mint_token(header={"cat": "unknown"}),
        mint_token(header={"typ": "jwt"}),
        mint_token(sub=""),
    ],
    ids=["machine", "oauth", "application oauth", "m2m class", "template", "unknown class", "typ", "nobody"],
)
async def test_j13_tokens_of_other_classes_are_refused(gateway: GatewayUnderTest, token: str) -> None:
    await refused(gateway, token)


async def test_j14_both_versions_of_claims_name_one_role(gateway: GatewayUnderTest) -> None:
    one = mint_token(v=ABSENT, org_id="org_2roles", org_slug="roles", org_role="org:admin")
    two = mint_token(o={"id": "org_2roles", "slg": "roles", "rol": "admin"})
    seen = []
    for token in (one, two):
        reply = await gateway.get("/admins/x", bearer(token))
        seen.append((reply.status, *map(gateway.upstream.last.one, ("x-organization-id", "x-organization-role"))))

    assert seen[0] == seen[1]
    assert seen[0][0] == 200
    assert seen[0][2] == "admin"


@pytest.mark.parametrize("version,role", [(2, "member"), (ABSENT, "admin"), (1, "admin")])
async def test_j14_version_decides_which_claims_are_read(gateway: GatewayUnderTest, version: Any, role: str) -> None:
    both: dict[str, Any] = {"org_id": "org_2v1", "org_role": "org:admin", "o": {"id": "org_2v2", "rol": "member"}}

    await gateway.get("/x", bearer(mint_token(v=version, **both)))

    assert gateway.upstream.last.one("x-organization-role") == role


@pytest.mark.parametrize("version", [3, 0, "2", None, True, 2.5])
async def test_j14_unknown_version_is_refused(gateway: GatewayUnderTest, version: object) -> None:
    await refused(gateway, mint_token(v=version))


async def test_j15_impersonator_is_told_to_the_upstream(gateway: GatewayUnderTest) -> None:
    act = {"iss": ISSUER, "sid": "sess_2support", "sub": "user_2support"}

    await gateway.get("/x", bearer(mint_token(act=act, sub="user_2helped")))
    impersonated = gateway.upstream.last.one("x-actor-impersonator-id")
    await gateway.get("/x", bearer(mint_token(sub="user_2helped")))

    assert impersonated == "user_2support"
    assert gateway.upstream.last.one("x-actor-impersonator-id") == ""


@pytest.mark.parametrize("act", [{}, "user_2support", {"sub": ""}, {"sub": "a\r\nX-A: b"}, []])
async def test_j15_malformed_impersonator_is_refused(gateway: GatewayUnderTest, act: object) -> None:
    await refused(gateway, mint_token(act=act))


async def test_j16_key_of_another_instance_under_the_same_name_is_refused(gateway: GatewayUnderTest) -> None:
    await refused(gateway, mint_token(key="another instance"))


async def test_j17_expired_token_is_not_served_from_memory(gateway: GatewayUnderTest) -> None:
    token = mint_token(exp=time.time() - 3)  # inside the leeway: accepted now, but never remembered

    first = await gateway.get("/x", bearer(token))
    hits = await gateway.metric("gateway_cache_requests_total", result="hit")
    await gateway.get("/x", bearer(token))

    assert first.status == 200
    assert await gateway.metric("gateway_cache_requests_total", result="hit") == hits


TOKEN = st.text("abcABC019-_.~+/=", max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(TOKEN)
@settings(max_examples=100, deadline=None)
async def test_any_bearer_is_refused_and_never_an_error_of_ours(module_gateway: GatewayUnderTest, token: str) -> None:
    reply = await module_gateway.get("/x", bearer(token))

    assert reply.status in (400, 401)


@given(st.dictionaries(st.sampled_from(["o", "fea", "pla", "act", "sts", "fva", "sid", "aud", "name", "email"]), JSON))
@settings(max_examples=60, deadline=None)
async def test_any_claims_are_taken_or_refused_and_never_an_error_of_ours(
    module_gateway: GatewayUnderTest, claims: dict[str, Any]
) -> None:
    reply = await module_gateway.get("/x", bearer(mint_token(**claims)))

    assert reply.status in (200, 401)
