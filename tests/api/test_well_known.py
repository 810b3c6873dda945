"""`/.well-known/jwks.json` over a real socket."""

import jwt
import pytest

from tests.support.gateway import ORIGIN, GatewayUnderTest, mint_token
from tests.support.wire import bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS = {"api": {"prefix": "/own"}}
JWKS = "/.well-known/jwks.json"


async def test_keys_are_open_to_all_and_may_be_kept_for_a_while(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get(JWKS)

    assert reply.status == 200
    assert reply.get("content-type") == "application/json"
    assert reply.get("cache-control") == "public, max-age=300"
    assert [key.keys() for key in reply.json()["keys"]] == [{"kty", "crv", "x", "y", "kid", "alg", "use"}]


async def test_a_private_part_is_never_published(gateway: GatewayUnderTest) -> None:
    assert b'"d"' not in (await gateway.get(JWKS)).body


@pytest.mark.parametrize("origin", [ORIGIN, "https://other.example", "null"])
async def test_pages_of_every_origin_may_read_them(gateway: GatewayUnderTest, origin: str) -> None:
    reply = await gateway.get(JWKS, f"Origin: {origin}")

    assert reply.get("access-control-allow-origin") == "*"
    assert reply.get("access-control-allow-credentials") is None


@pytest.mark.parametrize("shape", ["{}", "W/{}", '"other", {}', "*"])
async def test_whoever_has_them_already_is_told_so(gateway: GatewayUnderTest, shape: str) -> None:
    etag = (await gateway.get(JWKS)).get("etag")
    async with gateway.wire() as wire:
        reply = await wire.ask(request(JWKS, f"If-None-Match: {shape.format(etag)}"))
        again = await wire.ask(request(JWKS, 'If-None-Match: "another"'))

    assert (reply.status, reply.body, reply.get("etag")) == (304, b"", etag)
    assert reply.get("content-length") is None
    assert reply.get("cache-control") == "public, max-age=300"
    assert again.status == 200


async def test_a_bad_credential_does_not_matter(gateway: GatewayUnderTest) -> None:
    assert (await gateway.get(JWKS, bearer(mint_token(key="stranger")))).status == 200


async def test_nothing_else_can_be_done_there(gateway: GatewayUnderTest) -> None:
    reply = await gateway.ask(request(JWKS, method="POST", body=b"{}"))

    assert (reply.status, reply.code) == (405, "method_not_allowed")


async def test_published_keys_verify_an_assertion(gateway: GatewayUnderTest) -> None:
    keys = jwt.PyJWKSet.from_dict((await gateway.get(JWKS)).json())
    await gateway.get("/x", bearer(mint_token()))
    assertion = gateway.upstream.received[-1].one("X-Actor-Assertion")

    key = keys[jwt.get_unverified_header(assertion)["kid"]]
    claims = jwt.decode(assertion, key, ["ES256"], audience="app", issuer=ORIGIN)

    assert claims["sub"] == gateway.upstream.received[-1].one("X-Actor-Id")
