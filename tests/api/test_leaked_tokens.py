"""`POST /tokens/leaked`: reports of a secret scanning service, good and forged."""

import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway.verify.reporter_keys import parse_keys
from provisioning.token_text import SCANNER_PATTERN, new_system_token, new_token
from tests.support.api_tokens import PATH, call, made_token, value, with_another_secret
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.postgres import PostgresServer
from tests.support.secret_scanner import TARGET, SecretScanner, pem, secret_scanner
from tests.support.wire import bearer, request

DOCUMENT = Path(__file__).parents[2] / "docs/api-tokens.md"


@pytest.fixture
async def scanner() -> AsyncIterator[SecretScanner]:
    async with secret_scanner() as running:
        yield running


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
async def gateway(
    request: pytest.FixtureRequest, database_url: str, scanner: SecretScanner
) -> AsyncIterator[GatewayUnderTest]:
    changes = {"fast_lane": request.param, "tokens": {"leak_keys_url": scanner.url}}
    async with gateway_under_test(database_url, **changes) as running:
        yield running


def labels(answer: list[dict[str, str]]) -> list[str]:
    return [one["label"] for one in answer]


async def test_reported_token_is_revoked_at_once_and_told_of_in_the_answer(
    gateway: GatewayUnderTest, scanner: SecretScanner
) -> None:
    leaked, safe = await made_token(gateway, name="Leaked"), await made_token(gateway, name="Safe")
    before = [(await gateway.get("/x", bearer(token["token"]))).status for token in (leaked, safe)]
    finds = [leaked["token"], with_another_secret(safe["token"]), new_token().text, "agt_junk", ""]

    reply = await scanner.report(gateway, *finds)
    after = [(await gateway.get("/x", bearer(token["token"]))).status for token in (leaked, safe)]

    assert before == [200, 200]
    assert reply.status == 200
    assert labels(reply.json()) == ["true_positive"] + 4 * ["false_positive"]
    assert [one["token_hash"] for one in reply.json()] == [hashlib.sha256(text.encode()).hexdigest() for text in finds]
    assert {one["token_type"] for one in reply.json()} == {"actorgate"}
    assert leaked["token"][16:] not in reply.body.decode()
    assert after == [401, 200]


async def test_revocation_by_report_is_on_record_once(gateway: GatewayUnderTest, scanner: SecretScanner) -> None:
    leaked = await made_token(gateway)

    replies = [await scanner.report(gateway, leaked["token"], leaked["token"]) for _ in range(2)]

    recorded = "SELECT count(*) FROM audit_events e WHERE action = 'api_token.revoked' AND e::text LIKE '%leaked%'"
    assert [labels(reply.json()) for reply in replies] == 2 * [["true_positive", "true_positive"]]
    assert await value(gateway, recorded) == 1
    shown = (await call(gateway, mint_token(), "GET", f"{PATH}/{leaked['id']}")).json()
    assert shown["revokedAt"] is not None


async def test_leaked_system_token_is_told_of_and_logged(
    database_url: str, scanner: SecretScanner, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, other = new_system_token(), new_system_token()
    system = [{"name": "deploys", "sha256": [ours.digest().hex().upper()], "networks": ["127.0.0.0/8"]}]
    async with gateway_under_test(database_url, tokens={"leak_keys_url": scanner.url}, system_tokens=system) as gateway:
        reply = await scanner.report(gateway, ours.text, other.text)

    logged = capsys.readouterr().out
    assert labels(reply.json()) == ["true_positive", "false_positive"]
    assert "system token leaked" in logged
    assert ours.text not in logged


async def test_report_without_a_good_signature_revokes_nothing(
    gateway: GatewayUnderTest, scanner: SecretScanner
) -> None:
    made = await made_token(gateway)
    body = json.dumps([{"token": made["token"], "type": "x"}]).encode()
    content, identifier, signature = scanner.signed(body)
    stranger = SecretScanner()
    reports = [
        [content],
        [content, identifier],
        [content, signature],
        [content, identifier, signature, signature],
        [content, identifier, identifier, signature],
        stranger.signed(body),
        scanner.signed(body + b" "),
        [content, identifier, "Github-Public-Key-Signature: AAAA"],
        [content, identifier, "Github-Public-Key-Signature: not base64"],
        [content, f"{identifier}0", signature],
    ]

    replies = [await gateway.ask(request(TARGET, *lines, method="POST", body=body)) for lines in reports]

    assert {(reply.status, reply.code) for reply in replies} == {(403, "signature_invalid")}
    assert (await gateway.get("/x", bearer(made["token"]))).status == 200


async def test_signed_body_that_is_no_report_is_refused(gateway: GatewayUnderTest, scanner: SecretScanner) -> None:
    for body in (b"{}", b"[1]", b'[{"type": "x"}]', b'[{"token": 1}]', b"[", b'"x"'):
        reply = await gateway.ask(request(TARGET, *scanner.signed(body), method="POST", body=body))

        assert (reply.status, reply.code) == (422, "content_invalid")


async def test_keys_are_fetched_once_and_not_again_for_every_unknown_one(
    gateway: GatewayUnderTest, scanner: SecretScanner
) -> None:
    for _ in range(3):
        await scanner.report(gateway, "agt_junk")
    for number in range(5):
        lines = ["Content-Type: application/json", f"Github-Public-Key-Identifier: {number}"]
        await gateway.ask(request(TARGET, *lines, "Github-Public-Key-Signature: AA==", method="POST", body=b"[]"))

    assert scanner.fetches == 1


async def test_nothing_counts_while_the_keys_cannot_be_had(gateway: GatewayUnderTest, scanner: SecretScanner) -> None:
    made = await made_token(gateway)
    scanner.status = 500

    replies = [await scanner.report(gateway, made["token"]) for _ in range(2)]

    assert {(reply.status, reply.code) for reply in replies} == {(503, "verifier_unavailable")}
    assert replies[0].get("retry-after") is not None
    assert scanner.fetches == 1
    assert (await gateway.get("/x", bearer(made["token"]))).status == 200


async def test_report_waits_for_postgresql(postgres_server: PostgresServer, scanner: SecretScanner) -> None:
    async with gateway_under_test(postgres_server.url, tokens={"leak_keys_url": scanner.url}) as gateway:
        made = await made_token(gateway)
        await postgres_server.stop()
        reply = await scanner.report(gateway, made["token"])
        junk = await scanner.report(gateway, "agt_junk")

    assert (reply.status, reply.code) == (503, "store_unavailable")
    assert labels(junk.json()) == ["false_positive"]


async def test_nothing_is_there_unless_it_is_configured(database_url: str, scanner: SecretScanner) -> None:
    async with gateway_under_test(database_url) as gateway:
        reply = await scanner.report(gateway, "agt_junk")
        document = (await gateway.get("/openapi.json")).json()

    assert reply.status == 401
    assert TARGET not in document["paths"]


async def test_openapi_tells_of_it_where_it_is_configured(gateway: GatewayUnderTest) -> None:
    assert TARGET in (await gateway.get("/openapi.json")).json()["paths"]


def test_published_keys_that_are_none_of_p256_are_left_out() -> None:
    good = ec.generate_private_key(ec.SECP256R1())
    weak = rsa.generate_private_key(65537, 2048).public_key()
    entries = [
        {"key_identifier": "good", "key": pem(good)},
        {"key_identifier": "curve", "key": pem(ec.generate_private_key(ec.SECP384R1()))},
        {
            "key_identifier": "rsa",
            "key": weak.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        },
        {"key_identifier": "text", "key": "-----BEGIN PUBLIC KEY-----"},
        {"key_identifier": 1, "key": pem(good)},
        {"key": pem(good)},
        "x",
    ]

    assert list(parse_keys(json.dumps({"public_keys": entries}).encode())) == ["good"]


@given(st.binary(max_size=60) | st.sampled_from([b"[]", b'{"public_keys": 1}', b'{"public_keys": []}', b"\xff"]))
def test_any_other_document_is_a_declared_error(body: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parse_keys(body)


def test_document_gives_scanners_the_expression_of_the_code() -> None:
    assert SCANNER_PATTERN in DOCUMENT.read_text(encoding="utf-8")
    assert re.fullmatch(SCANNER_PATTERN, new_token().text)
