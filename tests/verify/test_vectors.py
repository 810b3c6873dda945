"""Clerk's conformance vectors through our own rules."""

import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from config.model import Cache
from config.publishable_key import parse_publishable_key
from gateway.credentials.find import find_credentials
from gateway.credentials.jwt_text import UnverifiedJwt, parse_jwt
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.credentials.session_cookie import CookieRules
from gateway.errors import CredentialRejected, VerifierUnavailable
from gateway.verify.authorization import has_feature, has_permission, has_plan, has_role, is_fresh, is_reverified
from gateway.verify.claims import VerifiedClaims, read_principal
from gateway.verify.machine import MachineRules
from gateway.verify.machine_api import MachineApi
from gateway.verify.machine_tokens import MachineTokens
from gateway.verify.principal import Principal
from gateway.verify.session import SessionRules, check_claims, check_class, check_signature, key_id
from gateway.verify.signing_keys import SigningKeys
from gateway.verify.verifier import Verifier
from tests.support.jwks_server import JwksServer, serve_jwks
from tests.support.vectors import name_of, vectors
from tests.verify.differences import DIFFERENCES, NOT_RUN

ISSUER = "https://clerk.inspired.puma-74.lcl.dev"
ABSENT = "session-token-and-uat-missing"
KINDS = {  # Clerk's words for them
    "session_token": CredentialKind.SESSION,
    "api_key": CredentialKind.CLERK_API_KEY,
    "oauth_token": CredentialKind.CLERK_OAUTH,
    "m2m_token": CredentialKind.CLERK_M2M,
}


def _listed(value: str | list[str] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def _rules(options: dict[str, Any]) -> SessionRules:
    return SessionRules(
        issuers=_listed(options.get("issuer", ISSUER)),
        authorized_parties=_listed(options.get("authorized_parties")),
        leeway_s=options.get("clock_skew_ms", 5000) / 1000,
    )


async def _publish(server: JwksServer, vector: dict[str, Any]) -> None:
    """Let the key server answer what the vector's did."""
    if "jwks" in vector:
        server.body = json.dumps(vector["jwks"]).encode()
    if "jwks_response" in vector:
        response = vector["jwks_response"]

        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=response["status"], text=json.dumps(response["body"]))

        server.answer = answer


async def _key(vector: dict[str, Any], kid: str) -> RSAPublicKey:
    if "pem" in vector:
        pem = load_pem_public_key(vector["pem"].encode())
        assert isinstance(pem, RSAPublicKey)
        return pem
    async with serve_jwks() as server:
        await _publish(server, vector)
        keys = SigningKeys(server.url)
        await keys.start()
        try:
            return (await keys.fetch_key(kid)).public_key
        finally:
            await keys.close()


async def _token_outcome(vector: dict[str, Any]) -> str:
    """What Clerk calls `verifyToken`: one token and no view of the request."""
    rules = _rules(vector["options"])
    try:
        token = parse_jwt(vector["token"])
        check_signature(token, await _key(vector, key_id(token, rules)))
        check_claims(token, rules, Carrier.HEADER, vector["now"])
    except (CredentialRejected, VerifierUnavailable) as error:
        return error.reason
    return "ok"


def _accepted(options: dict[str, Any]) -> frozenset[CredentialKind]:
    """What a route with this option of Clerk's would name in `accept`."""
    words = _listed(options.get("accepts_token", "session_token"))
    return frozenset(KINDS.values()) if words == ("any",) else frozenset(KINDS[word] for word in words)


def _presented(authorization: bytes | None, cookies: list[bytes], vector: dict[str, Any]) -> Credential:
    """What counts of a request, as the pipeline takes it: a kind that is not named is refused before anybody is asked.

    The pipeline's word for that is `kind_not_accepted`; Clerk's stands here.
    """
    rules = CookieRules.of(parse_publishable_key(vector["options"]["publishable_key"]))
    found = find_credentials(authorization, None, cookies, rules, vector["now"])
    if not found:
        raise CredentialRejected(ABSENT)
    if found[0].kind not in _accepted(vector["options"]):
        raise CredentialRejected("token-type-mismatch")
    return found[0]


async def _authenticated(vector: dict[str, Any], rules: SessionRules | None = None) -> tuple[UnverifiedJwt, Principal]:
    headers = vector["request"]["headers"]
    authorization = headers["authorization"].encode() if "authorization" in headers else None
    cookies = [headers["cookie"].encode()] if "cookie" in headers else []
    credential = _presented(authorization, cookies, vector)
    async with serve_jwks() as server:
        await _publish(server, vector)
        keys = SigningKeys(server.url)
        await keys.start()
        try:
            verifier = Verifier(keys, rules or _rules(vector["options"]), lambda: float(vector["now"]))
            principal = await verifier.verify(credential)
        finally:
            await keys.close()
    return parse_jwt(credential.token), principal


def _applies(vector: dict[str, Any]) -> bool:
    row = DIFFERENCES.get(vector["name"])
    return row is None or row.ours != NOT_RUN


def _expected(vector: dict[str, Any], theirs: str) -> str:
    row = DIFFERENCES.get(vector["name"])
    if row is None:
        return theirs
    assert row.ours != theirs, "the row is stale: it comes out the same"
    return row.ours


def _running(kind: str) -> list[dict[str, Any]]:
    return [vector for vector in vectors(kind) if _applies(vector)]


@pytest.mark.parametrize("vector", _running("verify_token"), ids=name_of)
async def test_token_comes_out_as_in_clerks_library(vector: dict[str, Any]) -> None:
    theirs = "ok" if vector["expect"]["ok"] else vector["expect"]["reason"]

    assert await _token_outcome(vector) == _expected(vector, theirs)


@pytest.mark.parametrize("vector", _running("authenticate"), ids=name_of)
async def test_request_comes_out_as_in_clerks_library(vector: dict[str, Any]) -> None:
    expect = vector["expect"]
    theirs = expect.get("reason") or expect["status"]
    ours = _expected(vector, theirs)
    if ours != "signed-in":
        with pytest.raises(CredentialRejected) as refused:
            await _authenticated(vector)

        assert refused.value.reason == ours
        return
    token, principal = await _authenticated(vector)

    assert principal.kind is KINDS[expect.get("token_type") or "session_token"]
    assert principal.subject == expect.get("user_id", principal.subject)
    assert principal.subject == expect.get("machine_id", principal.subject)
    assert list(principal.scopes or ()) == expect.get("scopes", list(principal.scopes or ()))
    assert principal.token_id == expect.get("id", principal.token_id)
    assert principal.session_id == expect.get("session_id", principal.session_id)
    assert principal.pending == (expect.get("auth_session_status") == "pending")
    assert expect.get("claims_subset", {}).items() <= token.payload.items()
    if "actor" in expect:
        assert principal.impersonator is not None
        assert principal.impersonator.subject == expect["actor"]["sub"]
    if "org_id" in expect:
        assert principal.organization is not None
        assert principal.organization.id == expect["org_id"]
        assert f"org:{principal.organization.role}" == expect["org_role"]
        assert list(principal.organization.permissions) == expect["org_permissions"]


async def test_oauth_token_signs_in_where_its_issuer_is_one_of_ours() -> None:
    (vector,) = (vector for vector in vectors("authenticate") if vector["name"] == "header-oauth-jwt-accepted")

    _, principal = await _authenticated(
        vector, replace(_rules(vector["options"]), issuers=("https://clerk.oauth.example.test",))
    )

    assert (principal.kind, principal.subject) == (CredentialKind.CLERK_OAUTH, vector["expect"]["user_id"])
    assert principal.scopes == ("read:foo", "write:bar")


async def _asked(vector: dict[str, Any]) -> Principal:
    """Verify an opaque token with the one answer that Clerk gives, which must be to the question it expects."""
    options, wanted = vector["options"], vector["backend_api"]["request"]
    questions = []

    async def answer(request: web.Request) -> web.Response:
        presented = request.headers.get("Authorization")
        questions.append((request.method, request.path, await request.json(), presented))
        response = vector["backend_api"]["response"]
        return web.json_response(response["json"], status=response["status"])

    credential = _presented(b"Bearer " + vector["token"].encode(), [], vector)
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answer)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        api = MachineApi(session, str(server.make_url("")), options["secret_key"], options.get("machine_secret_key"))
        rules = MachineRules.beside(_rules(options))
        tokens = MachineTokens(api, rules, Cache(), clock=lambda: float(vector["now"]))
        try:
            return await tokens.verify(credential)
        finally:
            assert questions == [(wanted["method"], wanted["path"], wanted["json"], wanted["authorization"])]


@pytest.mark.parametrize("vector", _running("machine_opaque"), ids=name_of)
async def test_opaque_token_comes_out_as_in_clerks_library(vector: dict[str, Any]) -> None:
    expect = vector["expect"]
    ours = _expected(vector, expect.get("reason") or expect["status"])
    if ours != "signed-in":
        with pytest.raises((CredentialRejected, VerifierUnavailable)) as refused:
            await _asked(vector)

        assert refused.value.reason == ours
        # Our own wrong key and an outage are nobody else's fault.
        wrong = isinstance(refused.value, CredentialRejected)
        assert wrong == (ours not in ("secret-key-invalid", "unexpected-error"))
        return
    principal = await _asked(vector)

    assert principal.kind is KINDS[expect["token_type"]]
    assert principal.token_id == expect.get("id", principal.token_id)
    wanted = expect.get("user_id") or expect.get("org_id") or expect.get("machine_id") or principal.subject
    assert principal.subject == wanted
    assert list(principal.scopes or ()) == expect.get("scopes", list(principal.scopes or ()))


def _principal(claims: dict[str, Any]) -> Principal:
    return read_principal(VerifiedClaims(claims), Carrier.HEADER)


@pytest.mark.parametrize("vector", _running("claims"), ids=name_of)
def test_claims_are_read_as_in_clerks_library(vector: dict[str, Any]) -> None:
    expect = vector["expect"]
    row = DIFFERENCES.get(vector["name"])
    organization = _principal(vector["claims"]).organization

    assert (organization.id if organization else None) == expect["org_id"]
    if organization is not None:
        permissions = row.ours.split() if row else expect["org_permissions"]
        assert (f"org:{organization.role}" if organization.role else None) == expect["org_role"]
        assert organization.slug == expect["org_slug"]
        assert list(organization.permissions) == permissions
    if "session_status" in expect:
        assert _principal(vector["claims"]).pending == (expect["session_status"] == "pending")
        assert _principal(vector["claims"]).factor_ages == tuple(expect["factor_verification_age"])


def _has(principal: Principal, query: dict[str, Any]) -> bool:
    answers = []
    for dimension, question in query.items():
        if not isinstance(question, str | dict):
            answers.append(False)
        elif dimension == "reverification":
            ages = principal.factor_ages
            if isinstance(question, dict):
                answers.append(is_fresh(question["level"], question["after_minutes"], ages))
            else:
                answers.append(is_reverified(question, ages))
        else:
            ask = {"role": has_role, "permission": has_permission, "feature": has_feature, "plan": has_plan}[dimension]
            answers.append(ask(principal, str(question)))
    return bool(answers) and all(answers)


@pytest.mark.parametrize("vector", _running("has"), ids=name_of)
def test_has_answers_as_in_clerks_library(vector: dict[str, Any]) -> None:
    auth = vector["auth"]
    claims = {
        "iss": ISSUER,
        "exp": 1,
        "sub": auth["user_id"],
        "org_id": auth["org_id"],
        "org_role": auth["org_role"],
        "org_permissions": auth["org_permissions"],
        "fea": auth["features"],
        "pla": auth["plans"],
        "fva": auth["fva"],
    }
    try:
        answer = _has(_principal(claims), vector["query"])
    except CredentialRejected:
        answer = False

    assert answer == vector["expect"]["ok"]


@pytest.mark.parametrize("vector", _running("token_type"), ids=name_of)
def test_token_is_classified_as_in_clerks_library(vector: dict[str, Any]) -> None:
    found = find_credentials(vector["token"].encode(), None, [], CookieRules(), 0)  # a word alone is a bearer

    assert [credential.kind for credential in found] == ([KINDS[vector["expect"]["token_type"]]] if found else [])
    assert bool(found) == bool(vector["token"])  # no text at all is nothing presented


@pytest.mark.parametrize("vector", _running("token_type"), ids=name_of)
def test_token_of_another_type_is_no_session(vector: dict[str, Any]) -> None:
    try:
        check_class(parse_jwt(vector["token"]))
        ours = "session_token"
    except CredentialRejected as error:
        ours = error.reason

    if vector["expect"]["token_type"] == "session_token":
        assert ours in ("session_token", "token-invalid")  # what is no JWT at all goes on as a bad session token
    else:
        assert ours in ("token-type-mismatch", "token-invalid")


@pytest.mark.parametrize("vector", _running("publishable_key"), ids=name_of)
def test_publishable_key_is_read_as_in_clerks_library(vector: dict[str, Any]) -> None:
    expect = dict(vector["expect"])
    if not expect["valid"]:
        with pytest.raises(ValueError, match="publishable key"):
            parse_publishable_key(vector["input"])
        return
    key = parse_publishable_key(vector["input"])

    names = ("frontend_api", "instance_type", "cookie_suffix", "issuer", "jwks_url")
    assert {name: getattr(key, name) for name in names if name in expect} == {
        name: expect[name] for name in names if name in expect
    }


def test_every_row_of_the_table_names_a_vector() -> None:
    kinds = ("verify_token", "authenticate", "claims", "has", "token_type", "publishable_key", "machine_opaque")

    assert set(DIFFERENCES) <= {vector["name"] for kind in kinds for vector in vectors(kind)}
