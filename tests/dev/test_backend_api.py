"""The wire of the local Backend API is Clerk's."""

from typing import Any

import pytest

from gateway.dev.personas import ORGANIZATIONS, find_persona
from tests.dev.places import SECRET_KEY, Served

ALICE, DAVE = find_persona("alice"), find_persona("dave")
ACME = ORGANIZATIONS[0]


async def asked(issuer: Served, path: str, secret_key: str | None = SECRET_KEY) -> tuple[int, Any]:
    headers = {} if secret_key is None else {"Authorization": f"Bearer {secret_key}"}
    async with issuer.client.get(f"{issuer.url}{path}", headers=headers) as response:
        return response.status, await response.json()


async def test_user_has_a_verified_primary_address(issuer: Served) -> None:
    status, user = await asked(issuer, f"/v1/users/{ALICE.id}")

    (address,) = user["email_addresses"]
    assert (status, user["object"], user["id"]) == (200, "user", ALICE.id)
    assert user["primary_email_address_id"] == address["id"]
    assert address["verification"]["status"] == "verified"
    assert (user["first_name"], user["last_name"]) == ("Alice", "Adams")
    assert user["banned"] is False


@pytest.mark.parametrize("word", [ACME.id, ACME.slug])
async def test_organization_is_found_by_id_and_by_slug(issuer: Served, word: str) -> None:
    status, organization = await asked(issuer, f"/v1/organizations/{word}")

    assert (status, organization["object"], organization["id"]) == (200, "organization", ACME.id)
    assert "members_count" not in organization


async def test_members_are_counted_when_asked(issuer: Served) -> None:
    _, organization = await asked(issuer, f"/v1/organizations/{ACME.id}?include_members_count=true")

    assert organization["members_count"] == 4


async def test_memberships_carry_the_role_with_its_prefix(issuer: Served) -> None:
    status, page = await asked(issuer, f"/v1/users/{DAVE.id}/organization_memberships")

    assert status == 200
    assert page["total_count"] == 2
    assert [membership["role"] for membership in page["data"]] == ["org:member", "org:admin"]
    assert page["data"][0]["organization"]["id"] == ACME.id
    assert page["data"][0]["public_user_data"]["user_id"] == DAVE.id


async def test_memberships_come_in_pages(issuer: Served) -> None:
    _, page = await asked(issuer, f"/v1/users/{DAVE.id}/organization_memberships?limit=1&offset=1")

    assert [membership["organization"]["slug"] for membership in page["data"]] == ["globex"]
    assert page["total_count"] == 2


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "offset=-1"])
async def test_bad_page_is_refused(issuer: Served, query: str) -> None:
    status, body = await asked(issuer, f"/v1/users/{DAVE.id}/organization_memberships?{query}")

    assert status == 400
    assert body["errors"][0]["code"] == "form_param_value_invalid"


@pytest.mark.parametrize(
    "path", ["/v1/users/user_x", "/v1/users/user_x/organization_memberships", "/v1/organizations/org_x"]
)
async def test_unknown_is_404_in_clerk_s_shape(issuer: Served, path: str) -> None:
    status, body = await asked(issuer, path)

    assert status == 404
    assert body["errors"][0]["code"] == "resource_not_found"
    assert set(body["errors"][0]) == {"message", "long_message", "code"}
    assert body["clerk_trace_id"]


@pytest.mark.parametrize(
    ("secret_key", "code"), [(None, "authentication_invalid"), ("sk_test_other", "clerk_key_invalid")]
)
@pytest.mark.parametrize("path", ["/v1/jwks", f"/v1/users/{ALICE.id}", f"/v1/organizations/{ACME.id}"])
async def test_caller_without_the_secret_key_is_401(
    issuer: Served, path: str, secret_key: str | None, code: str
) -> None:
    status, body = await asked(issuer, path, secret_key)

    assert status == 401
    assert body["errors"][0]["code"] == code


async def test_keys_are_shown_to_everyone_at_the_well_known_place(issuer: Served) -> None:
    status, keys = await asked(issuer, "/.well-known/jwks.json", None)

    assert status == 200
    assert keys == issuer.mint.key.jwks()
