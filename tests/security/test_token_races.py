"""Many at once ask for what there is only once, or only so many of."""

import asyncio

from tests.support.api_tokens import PATH, call, made_token, value
from tests.support.gateway import gateway_under_test, mint_token
from tests.support.wire import bearer

LIVING = "SELECT count(*) FROM api_tokens WHERE revoked_at IS NULL AND replaced_by IS NULL"


async def test_t07_fifty_at_once_make_no_more_tokens_than_the_setting_says(database_url: str) -> None:
    session = mint_token()
    async with gateway_under_test(database_url, tokens={"per_user": 10}) as gateway:
        await gateway.get("/users/current", bearer(session))
        before = await value(gateway, LIVING)
        asked = {"name": "Robot", "scopes": []}
        replies = await asyncio.gather(*(call(gateway, session, "POST", PATH, asked) for _ in range(50)))

        assert sorted({reply.status for reply in replies}) == [201, 409]
        assert sum(reply.status == 201 for reply in replies) == 10 - before
        assert await value(gateway, LIVING) == 10


async def test_t05_secret_is_revealed_to_one_of_twenty_at_once(database_url: str) -> None:
    session = mint_token()
    async with gateway_under_test(database_url) as gateway:
        await gateway.get("/users/current", bearer(session))
        first = await value(gateway, "SELECT id FROM api_tokens WHERE sealed_secret IS NOT NULL")
        asks = (call(gateway, session, "POST", f"{PATH}/{first}/reveal") for _ in range(20))
        replies = await asyncio.gather(*asks)

    assert sorted(reply.status for reply in replies) == [200] + [410] * 19


async def test_t04_one_line_of_tokens_comes_of_rotations_and_a_revocation_at_once(database_url: str) -> None:
    session = mint_token()
    async with gateway_under_test(database_url) as gateway:
        made = await made_token(gateway, session)
        path = f"{PATH}/{made['id']}"
        rotations = [call(gateway, session, "POST", f"{path}/rotate") for _ in range(10)]
        *rotated, revoked = await asyncio.gather(*rotations, call(gateway, session, "DELETE", path))

        assert revoked.status == 204
        assert {reply.status for reply in rotated} <= {201, 409}
        assert sum(reply.status == 201 for reply in rotated) <= 1
        assert (await gateway.get("/x", bearer(made["token"]))).status == 401
