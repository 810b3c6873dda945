"""Several processes over one key ring, made by whichever came first."""

import json
from pathlib import Path

import jwt

from tests.support.gateway import ORIGIN, mint_token
from tests.support.wire import bearer
from tests.support.workers import crew_under_test

JWKS = "/.well-known/jwks.json"


async def test_workers_publish_the_same_keys_and_verify_each_others_assertions(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    published, token = set(), mint_token()
    async with crew_under_test(tmp_path, database_url, redis_url, public_url=ORIGIN) as crew:
        for _ in range(40):  # connections of their own: either worker takes some
            published.add((await crew.get(JWKS)).body)
            await crew.get("/x", bearer(token))
        assertions = {received.one("X-Actor-Assertion") for received in crew.upstream.received}

    (document,) = published
    (key,) = jwt.PyJWKSet.from_dict(json.loads(document)).keys
    subjects = {jwt.decode(one, key, ["ES256"], audience="app", issuer=ORIGIN)["sub"] for one in assertions}
    assert len(assertions) == 2  # each worker signed one, and went on using it
    assert len(subjects) == 1
