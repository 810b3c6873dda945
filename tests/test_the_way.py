"""The main path, end to end: a Clerk session in, a trusted Actor at the upstream."""

from tests.support.gateway import gateway_under_test, mint_token
from tests.support.wire import bearer, request


async def test_a_session_reaches_the_upstream_as_an_actor(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        reply = await gateway.get("/reports?q=1", bearer(mint_token()), "Accept: */*")

        assert reply.status == 200
        seen = gateway.upstream.last
        assert seen.target == b"/reports?q=1"
        assert seen.one("x-actor-id").startswith("usr_")
        assert seen.one("x-organization-id").startswith("org_")
        assert seen.all("authorization") == []


async def test_current_user_is_answered_by_the_gateway(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        reply = await gateway.get("/users/current", bearer(mint_token()))

        assert reply.status == 200
        assert reply.json()["id"].startswith("usr_")
        assert gateway.upstream.received == []


async def test_without_a_token_a_problem_with_a_bare_challenge_is_answered(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        reply = await gateway.get("/reports")

        assert reply.status == 401
        assert reply.code == "credential_missing"
        assert reply.challenge.error is None


async def test_a_body_reaches_the_upstream(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        reply = await gateway.ask(request("/x", bearer(mint_token()), method="POST", body=b"hello"))

        assert reply.status == 200
        assert gateway.upstream.last.body == b"hello"
