"""Signing in, minting, and what the pages refuse."""

import html
import re
from http.cookies import SimpleCookie

import jwt
import pytest
from aiohttp import ClientResponse

from gateway.dev.personas import ORGANIZATIONS, PERSONAS
from gateway.dev.tokens import Mint
from tests.dev.places import GATEWAY, Served

ALICE = PERSONAS[0]


def cookies_of(response: ClientResponse) -> SimpleCookie:
    jar = SimpleCookie()
    for line in response.headers.getall("Set-Cookie", []):
        jar.load(line)
    return jar


def verified(mint: Mint, token: str) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(
        token, mint.key.private.public_key(), algorithms=["RS256"], issuer=mint.issuer
    )
    return claims


async def sign_in(issuer: Served, **fields: str) -> ClientResponse:
    return await issuer.client.post(f"{issuer.url}/sign-in", data=fields, allow_redirects=False)


async def test_signing_in_sets_clerk_s_cookies_and_goes_back(issuer: Served) -> None:
    response = await sign_in(issuer, persona="alice", redirect_url=f"{GATEWAY}/reports?a=1")

    suffix = issuer.place.cookie_suffix
    cookies = cookies_of(response)
    claims = verified(issuer.mint, cookies["__session"].value)
    assert response.status == 303
    assert response.headers["Location"] == f"{GATEWAY}/reports?a=1"
    assert set(cookies) == {
        "__session",
        f"__session_{suffix}",
        "__client_uat",
        f"__client_uat_{suffix}",
        "__clerk_db_jwt",
        f"__clerk_db_jwt_{suffix}",
    }
    assert claims["sub"] == ALICE.id
    assert cookies["__session"].value == cookies[f"__session_{suffix}"].value
    assert int(cookies["__client_uat"].value) == claims["iat"]


async def test_cookies_are_for_the_whole_host_and_same_site(issuer: Served) -> None:
    response = await sign_in(issuer, persona="alice")

    for cookie in cookies_of(response).values():
        assert (cookie["path"], cookie["samesite"], cookie["domain"]) == ("/", "Lax", "")
        assert not cookie["httponly"]


async def test_signing_in_without_a_target_leads_to_the_gateway(issuer: Served) -> None:
    response = await sign_in(issuer, persona="alice")

    assert response.headers["Location"] == f"{GATEWAY}/"


async def test_chosen_organization_is_the_active_one(issuer: Served) -> None:
    response = await sign_in(issuer, persona="dave", organization="globex")

    claims = verified(issuer.mint, cookies_of(response)["__session"].value)
    assert claims["o"]["id"] == ORGANIZATIONS[1].id  # type: ignore[index]  # a claim of a decoded token


async def test_working_alone_can_be_chosen(issuer: Served) -> None:
    response = await sign_in(issuer, persona="alice", organization="")

    assert "o" not in verified(issuer.mint, cookies_of(response)["__session"].value)


async def test_token_of_a_browser_at_localhost_names_that_origin(issuer: Served) -> None:
    host = f"localhost:{issuer.place.ports.issuer}"
    response = await issuer.client.post(
        f"{issuer.url}/sign-in", data={"persona": "alice"}, headers={"Host": host}, allow_redirects=False
    )

    claims = verified(issuer.mint, cookies_of(response)["__session"].value)
    assert claims["azp"] == "http://localhost:8080"
    assert response.headers["Location"] == "http://localhost:8080/"


async def test_browser_that_came_from_localhost_is_sent_to_the_page_there(issuer: Served) -> None:
    async with issuer.client.get(
        f"{issuer.url}/sign-in", params={"redirect_url": "http://localhost:8080/a"}, allow_redirects=False
    ) as response:
        assert response.status == 303
        assert response.headers["Location"].startswith(f"http://localhost:{issuer.place.ports.issuer}/sign-in?")


@pytest.mark.parametrize("target", ["https://evil.test/", "//evil.test", f"{GATEWAY}@evil.test/", "/relative"])
async def test_open_redirect_is_refused(issuer: Served, target: str) -> None:
    posted = await sign_in(issuer, persona="alice", redirect_url=target)
    shown = await issuer.client.get(f"{issuer.url}/sign-in", params={"redirect_url": target})

    assert (posted.status, shown.status) == (400, 400)
    assert "Set-Cookie" not in posted.headers


async def test_unknown_persona_is_refused_without_cookies(issuer: Served) -> None:
    response = await sign_in(issuer, persona="<b>nobody</b>")

    assert response.status == 400
    assert "nobody" not in await response.text()
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/tokens", "/v1/dev/tokens"])
async def test_form_of_another_site_is_refused(issuer: Served, path: str) -> None:
    async with issuer.client.post(
        f"{issuer.url}{path}", data={"persona": "alice"}, headers={"Origin": "https://evil.test"}
    ) as response:
        assert response.status == 403
        assert "Set-Cookie" not in response.headers


async def test_foreign_host_name_is_refused_against_dns_rebinding(issuer: Served) -> None:
    async with issuer.client.get(f"{issuer.url}/", headers={"Host": "rebound.evil.test:5555"}) as response:
        assert response.status == 421


async def test_signing_out_ends_the_session_and_says_zero(issuer: Served) -> None:
    await sign_in(issuer, persona="alice")
    response = await issuer.client.post(f"{issuer.url}/sign-out", allow_redirects=False)

    cookies = cookies_of(response)
    assert cookies["__session"]["max-age"] == "0"
    assert cookies[f"__session_{issuer.place.cookie_suffix}"]["max-age"] == "0"
    assert cookies["__client_uat"].value == "0"
    assert "__clerk_db_jwt" not in cookies


async def test_start_page_shows_who_is_signed_in_and_how_parts_are(issuer: Served) -> None:
    await sign_in(issuer, persona="dave")
    async with issuer.client.get(f"{issuer.url}/") as response:
        page = await response.text()

    assert response.status == 200
    assert "Dave Davis" in page
    assert "does not answer" in page  # no gateway runs in this test
    assert page.count("<h1>") == 1


async def test_commands_on_the_start_page_are_unescaped_text_to_a_reader(issuer: Served) -> None:
    async with issuer.client.get(f"{issuer.url}/") as response:
        commands = re.findall(r"<code>(curl .*?)</code>", await response.text())

    read = [html.unescape(command) for command in commands]
    assert len(read) >= 5
    assert all(command.startswith("curl -sS ") for command in read)


async def test_pages_run_no_foreign_code_and_are_not_kept(issuer: Served) -> None:
    async with issuer.client.get(f"{issuer.url}/sign-in") as response:
        page = await response.text()

    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["Cache-Control"] == "no-store"
    assert not re.search(r"\son[a-z]+=|<style|javascript:", page)
    assert all(persona.full_name in page for persona in PERSONAS)


@pytest.mark.parametrize("name", ["dev.css", "copy.js", "icon.svg"])
async def test_assets_are_our_own(issuer: Served, name: str) -> None:
    async with issuer.client.get(f"{issuer.url}/static/{name}") as response:
        assert response.status == 200
        assert "url(" not in await response.text()


async def test_minting_answers_a_token_that_verifies(issuer: Served) -> None:
    asked = {"persona": "dave", "organization": "globex"}
    async with issuer.client.post(f"{issuer.url}/v1/dev/tokens", json=asked) as response:
        answer = await response.json()

    claims = verified(issuer.mint, answer["token"])
    assert response.status == 201
    assert (answer["persona"], answer["organization"]) == ("dave", "globex")
    assert claims["azp"] == GATEWAY
    assert answer["expiresAt"].endswith("Z")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"persona": 1}', b'{"persona": "nobody"}', b'{"persona": "bob", "organization": "x"}']
)
async def test_minting_refuses_what_names_nobody(issuer: Served, body: bytes) -> None:
    async with issuer.client.post(f"{issuer.url}/v1/dev/tokens", data=body) as response:
        assert response.status == 400


async def test_page_button_shows_a_token(issuer: Served) -> None:
    async with issuer.client.post(f"{issuer.url}/tokens", data={"persona": "alice"}) as response:
        page = await response.text()

    found = re.search(r"<code>(eyJ[\w.-]+)</code>", page)
    assert found
    assert verified(issuer.mint, found[1])["sub"] == ALICE.id
