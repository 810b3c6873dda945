"""The one table of conformance vectors that do not come out here as in Clerk's own library, each with its reason."""

from dataclasses import dataclass

NOT_RUN = "not run"


@dataclass(frozen=True)
class Difference:
    """What comes out here, `NOT_RUN` when the vector cannot apply, and why."""

    ours: str
    why: str


_OAUTH = "an OAuth access token is another kind of credential here; there is no setting for header types"
_AUDIENCE = "session tokens carry no audience, and there is no setting for one"
_RS256 = "the algorithm is RS256 alone, judged before the key"
_EXPIRED = "no refresh is ever tried, so the word is that of the token"
_COOKIE = "a cookie is a credential of a kind that this route does not take, whatever stands in it"
_LOOKED_AT = "stricter: a 200 is no answer, what it says is"
_HANDSHAKE = "handshakes are not resolved: their cookies are ignored"

DIFFERENCES: dict[str, Difference] = {
    "valid-pem-body-only": Difference(NOT_RUN, "keys come from the key set alone; this spelling is no PEM"),
    "oauth-at-jwt-needs-header-type": Difference("token-invalid", _OAUTH),
    "oauth-application-at-jwt": Difference("token-invalid", _OAUTH),
    "session-jwt-with-at-jwt-required": Difference("ok", _OAUTH),
    "typ-absent-when-required": Difference("ok", _OAUTH),
    "jwks-endpoint-401-bad-secret-key": Difference("jwk-remote-failed-to-load", "the key set is public: no secret key"),
    "empty-sub-accepted-by-verifyToken": Difference("token-verification-failed", "stricter: nobody has an empty id"),
    "rs384-valid-signature-but-jwk-says-rs256": Difference("token-invalid-algorithm", _RS256),
    "rs512-valid-signature-but-jwk-says-rs256": Difference("token-invalid-algorithm", _RS256),
    "aud-array-no-match": Difference("ok", _AUDIENCE),
    "aud-string-no-match": Difference("ok", _AUDIENCE),
    "aud-substring-no-match": Difference("ok", _AUDIENCE),
    "header-lowercase-bearer-is-ignored": Difference("signed-in", "schemes are case-insensitive (RFC 9110 §11.1)"),
    "header-expired-document": Difference("token-expired", _EXPIRED),
    "header-expired-not-document": Difference("token-expired", _EXPIRED),
    "header-expired-post": Difference("token-expired", _EXPIRED),
    "cookie-expired-document": Difference("token-expired", _EXPIRED),
    "cookie-expired-xhr": Difference("token-expired", _EXPIRED),
    "handshake-location-carries-expired-token": Difference("token-expired", _EXPIRED),
    "machine-token-in-cookie": Difference("token-type-mismatch", _COOKIE),
    "header-oauth-jwt-accepted": Difference(
        "token-invalid-issuer",
        "stricter: `iss` is always compared (with this issuer among ours it signs in, see below)",
    ),
    "opaque-api_key-200-but-revoked": Difference("machine_revoked", _LOOKED_AT),
    "opaque-oauth_token-200-active-false": Difference("machine_inactive", _LOOKED_AT),
    "cross-origin-referrer-document": Difference(
        "signed-in", "the sync between domains needs a handshake; refusing would break every link from another site"
    ),
    "dev-no-cookies-xhr": Difference(
        "session-token-and-uat-missing", "without any session cookie nothing was presented, on test instances too"
    ),
    "dev-browser-in-url": Difference("signed-in", "the query is never read for credentials"),
    "suffix-unsuffixed-without-iss-keeps-unsuffixed": Difference(
        "token-invalid-issuer", "stricter: `iss` is always compared (the same cookie is chosen)"
    ),
    "handshake-token-session-cat": Difference("session-token-and-uat-missing", _HANDSHAKE),
    "handshake-token-ignore-cat": Difference("session-token-and-uat-missing", _HANDSHAKE),
    "handshake-token-no-cat": Difference("session-token-and-uat-missing", _HANDSHAKE),
    "handshake-token-signs-out": Difference("session-token-and-uat-missing", _HANDSHAKE),
    "handshake-token-dev-in-query": Difference("session-token-and-uat-missing", _HANDSHAKE),
    "claims-disputed-user-feature-first": Difference("org:beta:read", "only what both readings of the masks grant"),
    "pk-proxy-url": Difference(NOT_RUN, "no such setting: `issuer` and `jwks_url` can be set apart from the key"),
    "pk-satellite-domain": Difference(
        NOT_RUN, "no such setting: `issuer` and `jwks_url` can be set apart from the key"
    ),
}
