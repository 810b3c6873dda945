"""A credential in, a principal out."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.errors import CredentialRejected, VerifierUnavailable
from gateway.verify.session import SessionRules
from gateway.verify.signing_keys import SigningKeys
from gateway.verify.verifier import Verifier
from tests.support import jwks_server
from tests.support.clerk_keys import AUTHORIZED_PARTY, ISSUER, SUBJECT, jwk, jwks, mint_token
from tests.support.jwks_server import JwksServer, serve_jwks

NOW = 1_700_000_000
RULES = SessionRules((ISSUER,), (AUTHORIZED_PARTY,))


@pytest.fixture
async def server() -> AsyncIterator[JwksServer]:
    async with serve_jwks() as running:
        yield running


@pytest.fixture
async def keys(server: JwksServer) -> AsyncIterator[SigningKeys]:
    running = SigningKeys(server.url)
    await running.start()
    yield running
    await running.close()


@pytest.fixture
def verifier(keys: SigningKeys) -> Verifier:
    return Verifier(keys, RULES, lambda: float(NOW))


def _session(token: str, carrier: Carrier = Carrier.HEADER) -> Credential:
    return Credential(CredentialKind.SESSION, carrier, token)


async def test_session_is_verified_after_its_key_was_fetched(verifier: Verifier) -> None:
    credential = _session(mint_token(now=NOW), Carrier.COOKIE)
    before = verifier.verify_now(credential)
    principal = await verifier.verify(credential)
    after = verifier.verify_now(credential)

    assert before is None
    assert after == principal
    assert (principal.subject, principal.kind, principal.carrier) == (SUBJECT, CredentialKind.SESSION, Carrier.COOKIE)


@pytest.mark.parametrize("kind, token", [(CredentialKind.API_TOKEN, "agt_x"), (CredentialKind.SYSTEM_TOKEN, "ags_x")])
async def test_kinds_without_a_store_are_unknown(verifier: Verifier, kind: CredentialKind, token: str) -> None:
    with pytest.raises(CredentialRejected) as refused:
        verifier.verify_now(Credential(kind, Carrier.HEADER, token))

    assert refused.value.reason == "token-unknown"


async def test_refusal_of_the_credential_comes_first(verifier: Verifier, server: JwksServer) -> None:
    credential = replace(_session(mint_token(now=NOW)), refusal="session-token-but-no-client-uat")
    with pytest.raises(CredentialRejected) as refused:
        await verifier.verify(credential)

    assert refused.value.reason == "session-token-but-no-client-uat"


async def test_bad_claims_are_rejected_without_waiting(verifier: Verifier) -> None:
    await verifier.verify(_session(mint_token(now=NOW)))
    with pytest.raises(CredentialRejected) as refused:
        verifier.verify_now(_session(mint_token(now=NOW, iss="https://other.test")))

    assert refused.value.reason == "token-invalid-issuer"


async def test_key_rotated_under_its_name_verifies_after_one_fetch(verifier: Verifier, server: JwksServer) -> None:
    await verifier.verify(_session(mint_token(now=NOW)))
    generation = verifier.generation
    server.body = jwks(jwk("rotated"))
    credential = _session(mint_token(now=NOW, key="rotated"))
    before = verifier.verify_now(credential)
    principal = await verifier.verify(credential)

    assert before is None
    assert principal.subject == SUBJECT
    assert server.fetches == 2
    assert verifier.generation == generation + 1


async def test_k02_bad_signature_is_rejected_and_the_key_stays(verifier: Verifier, server: JwksServer) -> None:
    await verifier.verify(_session(mint_token(now=NOW)))
    forged = _session(mint_token(now=NOW, key="foreign"))
    for _ in range(20):
        with pytest.raises(CredentialRejected) as refused:
            await verifier.verify(forged)
    with pytest.raises(CredentialRejected):
        verifier.verify_now(forged)

    assert refused.value.reason == "token-invalid-signature"
    assert server.fetches == 2
    assert verifier.verify_now(_session(mint_token(now=NOW))) is not None


async def test_k02_bad_signature_is_bad_although_the_source_is_away(verifier: Verifier, server: JwksServer) -> None:
    await verifier.verify(_session(mint_token(now=NOW)))
    server.answer = jwks_server.status_500
    with pytest.raises(CredentialRejected):
        await verifier.verify(_session(mint_token(now=NOW, key="foreign")))


async def test_j03_j04_odd_headers_cause_no_fetch(verifier: Verifier, server: JwksServer) -> None:
    await verifier.verify(_session(mint_token(now=NOW)))
    for kid in ("", "k" * 5000, "' OR 1=1"):
        with pytest.raises(CredentialRejected):
            await verifier.verify(_session(mint_token(now=NOW, kid=kid)))
    url = server.url.replace("jwks.json", "attacker.json")
    await verifier.verify(_session(mint_token(now=NOW, header={"jku": url, "x5u": url})))

    assert (server.fetches, server.elsewhere) == (1, 0)


async def test_no_key_source_is_neither_good_nor_bad(verifier: Verifier, server: JwksServer) -> None:
    server.answer = jwks_server.status_500
    with pytest.raises(VerifierUnavailable) as refused:
        await verifier.verify(_session(mint_token(now=NOW)))

    assert refused.value.retry_after_s >= 1


@pytest.mark.parametrize("token", ["", "a.b.c", "....", "ak_live", mint_token(now=NOW).replace(".", "..", 1)])
async def test_garbage_is_rejected_without_a_fetch(keys: SigningKeys, server: JwksServer, token: str) -> None:
    await keys.close()
    with pytest.raises(CredentialRejected):
        await Verifier(keys, RULES).verify(_session(token))


async def test_errors_do_not_hold_the_token(verifier: Verifier) -> None:
    token = mint_token(now=NOW, key="foreign")
    with pytest.raises(CredentialRejected) as refused:
        await verifier.verify(_session(token))

    assert token not in f"{refused.value!r} {refused.value.__cause__!r} {refused.value.__context__!r}"
