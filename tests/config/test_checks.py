import base64
from pathlib import Path

import pytest

from config.checks import is_database_url, is_private_host, sign_in_url_of
from config.publishable_key import parse_publishable_key
from tests.support.settings_files import MASTER_KEY, PUBLISHABLE_KEY, VALID, keys_of, problems_of, settings_of

OIDC = "clerk: {issuer: https://clerk.example.com, jwks_url: https://clerk.example.com/jwks"


def _with_clerk(clerk: str) -> str:
    return "\n".join(clerk if line.startswith("clerk") else line for line in VALID.splitlines())


def _with_route(route: str) -> str:
    return VALID.replace("  - {path: /**, auth: required, upstream: app}", f"  - {{{route}, upstream: app}}")


@pytest.mark.parametrize(
    "clerk",
    [
        "clerk: {leeway: 1s}",
        "clerk: {issuer: https://clerk.example.com}",
        "clerk: {jwks_url: https://clerk.example.com/jwks}",
    ],
)
def test_clerk_needs_a_key_or_issuer_and_keys_address(tmp_path: Path, clerk: str) -> None:
    assert keys_of(tmp_path, _with_clerk(clerk)) == ["clerk"]


def test_a_publishable_key_that_is_none_is_refused_without_showing_it(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, VALID.replace(PUBLISHABLE_KEY, "pk_test_notakey"))

    assert problem.key == "clerk.publishable_key"
    assert "notakey" not in str(problem)


@pytest.mark.parametrize(
    ("secret", "valid"),
    [
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", True),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", True),
        ("whsec_dGVzdF9zaWduaW5nX3NlY3JldF8zMl9jaGFyc19sb25nMg==", True),
        ("whsec_dGVzdF9zaWduaW5nX3NlY3JldF8zMl9jaGFyc19sb25nMg", True),
        ("whsec_", False),
        ("whsec_c2hvcnQ", False),
        ("whsec_no base64, but of many characters", False),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwx", False),
    ],
)
def test_signing_secrets_of_webhooks_are_base64_of_enough_bytes(tmp_path: Path, secret: str, valid: bool) -> None:
    settings = _with_clerk(f"clerk: {{publishable_key: {PUBLISHABLE_KEY}, webhook_secrets: ['{secret}']}}")
    problems = problems_of(tmp_path, settings)

    assert [problem.key for problem in problems] == ([] if valid else ["clerk.webhook_secrets[0]"])
    assert all(secret.removeprefix("whsec_") not in str(problem) or secret == "whsec_" for problem in problems)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("issuer: http://clerk.example.com, jwks_url: https://clerk.example.com/jwks", "clerk.issuer"),
        ("issuer: https://clerk.example.com, jwks_url: http://clerk.example.com/jwks", "clerk.jwks_url"),
        (
            "issuer: https://a.example.com, jwks_url: https://a.example.com, api_url: http://a.example.com",
            "clerk.api_url",
        ),
    ],
)
def test_r03_http_addresses_of_clerk_are_refused(tmp_path: Path, address: str, key: str) -> None:
    assert keys_of(tmp_path, _with_clerk(f"clerk: {{{address}}}")) == [key]
    assert keys_of(tmp_path, _with_clerk(f"clerk: {{{address}, allow_insecure_http: true}}")) == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.1.2.3", "localhost", "a.localhost", "[::1]", "169.254.169.254", "0x7f.1"]
)
def test_r03_private_hosts_for_signing_keys_are_refused(tmp_path: Path, host: str) -> None:
    clerk = f"clerk: {{issuer: https://clerk.example.com, jwks_url: 'https://{host}/jwks'"

    assert keys_of(tmp_path, _with_clerk(f"{clerk}}}")) == ["clerk.jwks_url"]
    assert keys_of(tmp_path, _with_clerk(f"{clerk}, allow_insecure_http: true}}")) == []


def test_r03_a_publishable_key_of_a_private_host_is_refused_too(tmp_path: Path) -> None:
    key = "pk_test_" + base64.b64encode(b"127.0.0.1:5555$").decode()

    assert keys_of(tmp_path, VALID.replace(PUBLISHABLE_KEY, key)) == ["clerk.publishable_key"]


@pytest.mark.parametrize(
    ("host", "private"),
    [("clerk.example.com", False), ("8.8.8.8", False), ("2130706433", True), ("127.1", True), ("fd00::1", True)],
)
def test_a_private_host_is_known_by_its_text(host: str, private: bool) -> None:
    assert is_private_host(host) is private


@pytest.mark.parametrize(
    ("kind", "host", "url"),
    [
        ("live", "clerk.example.com", "https://accounts.example.com/sign-in"),
        ("test", "foo-bar-13.clerk.accounts.dev", "https://foo-bar-13.accounts.dev/sign-in"),
        ("live", "auth.example.com", None),
    ],
)
def test_the_sign_in_page_follows_from_the_key(kind: str, host: str, url: str | None) -> None:
    key = parse_publishable_key(f"pk_{kind}_" + base64.b64encode(f"{host}$".encode()).decode())

    assert sign_in_url_of(key) == url


@pytest.mark.parametrize(
    "networks", ["0.0.0.0/0", "'::/0'", "'::ffff:0:0/96'", "10.0.0.0/8, 0.0.0.0/0", "0.0.0.0/1, 128.0.0.0/1"]
)
def test_f06_trusting_every_address_as_a_proxy_is_refused(tmp_path: Path, networks: str) -> None:
    (problem,) = problems_of(tmp_path, f"trusted_proxies: [{networks}]\n{VALID}")

    assert problem.key.startswith("trusted_proxies")
    assert "everybody" in problem.message


def test_own_networks_can_be_trusted(tmp_path: Path) -> None:
    assert problems_of(tmp_path, f"trusted_proxies: [10.0.0.0/8, '::1', 192.0.2.1]\n{VALID}") == ()


@pytest.mark.parametrize(
    ("key", "word"),
    [("x" * 31, "too short"), ("change-me-" * 5, "example"), ("CHANGEME-0123456789-0123456789-0123", "example")],
)
def test_short_and_example_master_keys_are_refused(tmp_path: Path, key: str, word: str) -> None:
    (problem,) = problems_of(tmp_path, VALID.replace(MASTER_KEY, key))

    assert problem.key == "secrets.master_key"
    assert word in problem.message
    assert key not in str(problem)


def test_serving_needs_a_master_key_and_a_database(tmp_path: Path) -> None:
    rest = "\n".join(line for line in VALID.splitlines() if not line.startswith(("secrets", "database")))

    assert keys_of(tmp_path, rest) == ["secrets.master_key", "database.url"]
    assert keys_of(tmp_path, f"{rest}\ndatabase: {{embedded: true}}") == ["secrets.master_key"]


@pytest.mark.parametrize(
    ("url", "valid"),
    [
        ("postgresql://gateway@db.example.com/gateway", True),
        ("postgres://gateway:p%2Fw@[::1]:5432/gateway?sslmode=require", True),
        ("postgresql:///gateway?host=/run/postgresql", True),
        ("postgresql://a:1,b:2/gateway", True),
        ("postgresql://gateway:pa/ss@db.example.com/gateway", False),
        ("postgresql+asyncpg://db.example.com/gateway", False),
        ("db.example.com", False),
    ],
)
def test_a_database_url_is_taken_when_it_comes_apart_as_meant(url: str, valid: bool) -> None:
    assert is_database_url(url) is valid


def test_the_public_url_of_a_port_the_system_chooses_stays_open(tmp_path: Path) -> None:
    assert settings_of(tmp_path, VALID.replace("127.0.0.1:8080", "127.0.0.1:0")).public_url is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("rate_limits: {api: {limit: 10}}", "rate_limits.api.limit"),
        ("rate_limits: {guesses: {limit: 9/s, counts: failed_credentials, by: user}}", "rate_limits.guesses.by"),
        ("websocket: {max_per_principal: 0}", "websocket.max_per_principal"),
        ("workers: 2", "workers"),
        ("admin: {listen: 127.0.0.1:8080}", "admin.listen"),
        ("public_url: https://app.example.com/gateway", "public_url"),
        ("public_url: ftp://app.example.com", "public_url"),
        ("hosts: ['*.example.com']", "hosts[0]"),
        ("cors: {origins: ['*']}", "cors.origins[0]"),
        ("cors: {origins: [https://app.example.com:443]}", "cors.origins[0]"),
        ("cache: {near_ttl: 0s}", "cache.near_ttl"),
        ("cache: {near_ttl: -1}", "cache.near_ttl"),
        ("api: {prefix: /gateway/}", "api.prefix"),
    ],
)
def test_what_would_not_be_honoured_is_refused(tmp_path: Path, text: str, key: str) -> None:
    assert keys_of(tmp_path, f"{text}\n{VALID}") == [key]


@pytest.mark.parametrize(
    ("route", "key"),
    [
        ("path: /a, auth: required, rate_limit: api", "rate_limit"),
        ("path: /a, auth: none, protocol: socketio", "protocol"),
        ("path: /a, auth: required, methods: [get]", "methods[0]"),
        ("path: /a, auth: required, methods: [CONNECT]", "methods[0]"),
        ("path: /a, auth: none, roles: [ADMIN]", "auth"),
        ("path: /a, auth: required, accept: []", "accept"),
        ("path: a, auth: required", "path"),
        ("path: /a/**/b, auth: required", "path"),
        ("path: /a*, auth: required", "path"),
        ("path: /a//b, auth: required", "path"),
        ("path: /a/../b, auth: required", "path"),
        ("path: /a%2fb, auth: required", "path"),
        ("path: '/a;b', auth: required", "path"),
        ("path: /ä, auth: required", "path"),
    ],
)
def test_a_route_that_could_not_mean_what_it_says_is_refused(tmp_path: Path, route: str, key: str) -> None:
    assert keys_of(tmp_path, _with_route(route)) == [f"routes[0].{key}"]


@pytest.mark.parametrize(
    ("upstream", "key"),
    [
        ("url: ftp://127.0.0.1:9000", "upstreams.app.url"),
        ("url: https://127.0.0.1:9000/api", "upstreams.app.url"),
        ("url: http://127.0.0.1:9000/api", "upstreams.app.url"),
        ("url: http://u:p@127.0.0.1:9000", "upstreams.app.url"),
        ("url: unix:run/app.sock", "upstreams.app.url"),
        (f"url: unix:/{'a' * 107}", "upstreams.app.url"),
        ("connect_timeout: 1s", "upstreams.app"),
        ("addresses: []", "upstreams.app"),
        ("addresses: ['10.0.0.1:1']", "upstreams.app.addresses[0]"),
        ("addresses: [http://10.0.0.1, http://10.0.0.1:80]", "upstreams.app.addresses"),
        ("addresses: [http://10.0.0.1, https://10.0.0.1]", "upstreams.app.addresses"),
        ("addresses: [http://10.0.0.1, unix:/run/app.sock]", "upstreams.app.addresses"),
        ("url: http://127.0.0.1:9000\n    addresses: [http://10.0.0.1]", "upstreams.app.addresses"),
        ("url: http://127.0.0.1:9000\n    ca_file: /etc/ca.pem", "upstreams.app.ca_file"),
        ("url: unix:/run/app.sock\n    server_name: app.internal", "upstreams.app.server_name"),
        ("url: https://127.0.0.1:9000\n    verify: false", "upstreams.app.verify"),
    ],
)
def test_an_upstream_that_cannot_be_dialled_as_meant_is_refused(tmp_path: Path, upstream: str, key: str) -> None:
    assert keys_of(tmp_path, VALID.replace("url: http://127.0.0.1:9000", upstream)) == [key]


@pytest.mark.parametrize(
    "upstream",
    [
        "url: unix:/run/app.sock",
        "url: https://app.internal\n    ca_file: /etc/ca.pem\n    server_name: app.example.com",
        "addresses: [http://10.0.0.1:9000, http://10.0.0.2:9000]",
        "addresses: [unix:/run/a.sock, unix:/run/b.sock]",
    ],
)
def test_an_upstream_can_be_several_addresses_a_socket_or_https(tmp_path: Path, upstream: str) -> None:
    assert problems_of(tmp_path, VALID.replace("url: http://127.0.0.1:9000", upstream)) == ()


def test_with_tls_the_public_url_is_https(tmp_path: Path) -> None:
    tls = "tls: {certificate: /etc/tls.pem, key: /etc/tls.key}"

    assert settings_of(tmp_path, VALID).public_url == "http://127.0.0.1:8080"
    assert settings_of(tmp_path, f"{tls}\n{VALID}").public_url == "https://127.0.0.1:8080"


@pytest.mark.parametrize("key", ["certificate", "key"])
def test_tls_needs_certificate_and_key(tmp_path: Path, key: str) -> None:
    given = {"certificate": "key", "key": "certificate"}[key]

    assert keys_of(tmp_path, f"tls: {{{given}: /etc/tls.pem}}\n{VALID}") == [f"tls.{key}"]


def test_an_unknown_upstream_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, VALID.replace("upstream: app", "upstream: ap"))

    assert (problem.key, problem.message) == ("routes[0].upstream", "no upstream has this name; there are: app")


def test_no_leeway_is_a_valid_leeway(tmp_path: Path) -> None:
    assert settings_of(tmp_path, VALID.replace("clerk: {", "clerk: {leeway: 0s, ")).clerk.leeway == 0


def test_public_url_is_kept_as_written(tmp_path: Path) -> None:
    assert (
        settings_of(tmp_path, VALID + "\npublic_url: https://app.example.com/").public_url == "https://app.example.com/"
    )


DIGEST = "ab" * 32


def _with_system_tokens(*tokens: str) -> str:
    return VALID + "system_tokens:\n" + "".join(f"  - {{{token}}}\n" for token in tokens)


@pytest.mark.parametrize(
    ("tokens", "keys"),
    [
        ([f"name: a, sha256: [{DIGEST}], networks: [10.0.0.0/8]"], []),
        ([f"name: a, sha256: [{DIGEST}, {'CD' * 32}], networks: [10.0.0.0/8]"], []),
        ([f"name: a, sha256: [{DIGEST}], networks: []"], ["system_tokens[0].networks"]),
        ([f"name: a, sha256: [{DIGEST}]"], ["system_tokens[0].networks"]),
        (["name: a, sha256: [], networks: [10.0.0.0/8]"], ["system_tokens[0].sha256"]),
        (["name: a, sha256: [ags_abc], networks: [10.0.0.0/8]"], ["system_tokens[0].sha256[0]"]),
        (
            [f"name: a, sha256: [{DIGEST}], networks: [10.0.0.0/8]", f"name: a, sha256: [{DIGEST}], networks: ['::1']"],
            ["system_tokens[1].name", "system_tokens[1].sha256"],
        ),
    ],
)
def test_system_token_is_a_name_digests_and_networks(tmp_path: Path, tokens: list[str], keys: list[str]) -> None:
    assert keys_of(tmp_path, _with_system_tokens(*tokens)) == keys


def test_system_token_written_where_its_digest_belongs_is_not_repeated(tmp_path: Path) -> None:
    text = _with_system_tokens("name: a, sha256: [ags_secretsecret], networks: [10.0.0.0/8]")

    assert all("secretsecret" not in str(problem) for problem in problems_of(tmp_path, text))


def test_a_life_is_a_duration_or_never(tmp_path: Path) -> None:
    tokens = settings_of(tmp_path, f"{VALID}tokens: {{default_life: never, max_life: never}}\n").tokens

    assert (tokens.default_life, tokens.max_life) == (None, None)
    assert settings_of(tmp_path, VALID).tokens.max_life == 365 * 86400
    assert keys_of(tmp_path, f"{VALID}tokens: {{max_life: always}}\n") == ["tokens.max_life"]


@pytest.mark.parametrize("life", ["never", "366d"])
def test_a_default_life_beyond_the_longest_is_refused(tmp_path: Path, life: str) -> None:
    assert keys_of(tmp_path, f"{VALID}tokens: {{default_life: {life}}}\n") == ["tokens.default_life"]


def test_a_shorter_longest_life_needs_no_default_written(tmp_path: Path) -> None:
    assert settings_of(tmp_path, f"{VALID}tokens: {{max_life: 30d}}\n").tokens.max_life == 30 * 86400


def test_a_scope_of_a_route_that_nothing_declares_is_refused(tmp_path: Path) -> None:
    text = _with_route("path: /**, auth: required, scopes: [reports:read, profile:write, typo]")

    assert keys_of(tmp_path, f"{text}tokens: {{scopes: [reports:read]}}\n") == ["routes[0].scopes[2]"]
    assert keys_of(tmp_path, f"{text}tokens: {{scopes: [reports:read, typo]}}\n") == []


def test_keys_of_leak_reports_come_over_https_or_from_this_machine(tmp_path: Path) -> None:
    for address, keys in (
        ("https://api.github.com/meta/public_keys/secret_scanning", []),
        ("http://127.0.0.1:9000/keys", []),
        ("http://localhost/keys", []),
        ("http://api.github.com/keys", ["tokens.leak_keys_url"]),
        ("http://10.0.0.1/keys", ["tokens.leak_keys_url"]),
    ):
        assert keys_of(tmp_path, f"{VALID}tokens: {{leak_keys_url: '{address}'}}\n") == keys


@pytest.mark.parametrize(
    ("sections", "keys"),
    [
        ("flags: {provider: posthog}", ["flags.provider"]),
        ("flags: {provider: posthog}\nposthog: {project_key: phc_x}", ["flags.provider"]),
        ("flags: {provider: posthog}\nposthog: {project_key: phc_x, secret_key: phx_x}", []),
        ("flags: {provider: openfeature}", ["flags.provider"]),
        ("flags: {provider: openfeature, openfeature: 'a.b:C'}", []),
        ("flags: {provider: openfeature, openfeature: 'a.b'}", ["flags.openfeature"]),
        ("flags: {declare: {a: {type: integer, default: '1'}}}", ["flags.declare.a.default"]),
        ("flags: {declare: {a: {type: integer, default: true}}}", ["flags.declare.a.default"]),
        ("flags: {declare: {a: {type: integer, default: 18446744073709551616}}}", ["flags.declare.a.default"]),
        ("flags: {declare: {a: {type: number, default: .nan}}}", ["flags.declare.a.default"]),
        ("flags: {declare: {a: {type: json, default: {b: [1, null]}}}}", []),
    ],
)
def test_flags_need_a_source_that_can_be_asked_and_defaults_of_their_type(
    tmp_path: Path, sections: str, keys: list[str]
) -> None:
    assert keys_of(tmp_path, f"{VALID}{sections}\n") == keys


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("slack: {{webhook_url: '{0}/services/a-secret'}}", "slack.webhook_url"),
        ("posthog: {{host: '{0}', project_key: phc_x}}", "posthog.host"),
        ("stripe: {{secret_key: sk_x, price_id: price_x, api_url: '{0}'}}", "stripe.api_url"),
    ],
)
def test_receivers_are_reached_over_https_or_on_this_machine(tmp_path: Path, section: str, key: str) -> None:
    for origin, keys in (
        ("https://receiver.example.com", []),
        ("http://127.0.0.1:9000", []),
        ("http://localhost:9000", []),
        ("http://receiver.example.com", [key]),
        ("http://10.0.0.1", [key]),
        ("receiver.example.com", [key]),
        ("https://user@receiver.example.com", [key]),
    ):
        found = problems_of(tmp_path, f"{VALID}{section.format(origin)}\n")

        assert [problem.key for problem in found] == keys
        assert "a-secret" not in str(found)


def test_a_webhook_secret_with_which_anybody_could_sign_is_refused(tmp_path: Path) -> None:
    secrets = "whsec_abc, '', whsec_, …, whsec_…"  # the last two stand in our examples
    text = f"{VALID}stripe: {{secret_key: sk_x, price_id: price_x, webhook_secrets: [{secrets}]}}\n"

    assert keys_of(tmp_path, text) == [f"stripe.webhook_secrets[{place}]" for place in range(1, 5)]


def test_a_trial_is_as_long_as_stripe_allows_at_most_and_of_some_plan(tmp_path: Path) -> None:
    for keys, refused in (
        ("trial_days: 0", []),
        ("trial_days: 730", []),
        ("trial_days: 731", ["provisioning.trial_days"]),
        ("trial_days: -1", ["provisioning.trial_days"]),
        ("trial_plan: ''", ["provisioning.trial_plan"]),
    ):
        assert keys_of(tmp_path, f"{VALID}provisioning: {{{keys}}}\n") == refused


def test_a_scope_that_would_read_as_all_scopes_is_refused(tmp_path: Path) -> None:
    assert keys_of(tmp_path, f"{VALID}tokens: {{scopes: [a, '*']}}\n") == ["tokens.scopes[1]"]


def test_socketio_needs_an_upstream_that_is_told_by_assertions(tmp_path: Path) -> None:
    text = _with_route("path: /socket.io/**, auth: required, accept: [websocket_token], protocol: socketio")

    assert problems_of(tmp_path, text) == ()
    assert keys_of(
        tmp_path, text.replace("url: http://127.0.0.1:9000", "url: http://127.0.0.1:9000\n    assertion: false")
    ) == ["routes[0].upstream"]


@pytest.mark.parametrize(
    ("accept", "clerk", "keys"),
    [
        ("[session, clerk_api_key]", "", ["routes[0].accept[1]"]),
        ("[clerk_oauth, clerk_m2m]", "", ["routes[0].accept[0]", "routes[0].accept[1]"]),
        ("[clerk_oauth, clerk_m2m]", ", machine_secret_key: ak_x", ["routes[0].accept[0]"]),
        ("[clerk_m2m]", ", machine_secret_key: ak_x", []),
        ("[clerk_api_key, clerk_oauth, clerk_m2m]", ", secret_key: sk_x", []),
        ("[session]", "", []),
    ],
)
def test_a_route_that_takes_machine_tokens_needs_a_key_to_ask_clerk_with(
    tmp_path: Path, accept: str, clerk: str, keys: list[str]
) -> None:
    text = _with_route(f"path: /**, auth: required, accept: {accept}")
    (line,) = (line for line in text.splitlines() if line.startswith("clerk"))
    text = text.replace(line, line[:-1] + clerk + "}")

    assert keys_of(tmp_path, text) == keys


def test_what_a_missing_key_of_clerks_is_for_is_told_with_its_line(tmp_path: Path) -> None:
    text = _with_route("path: /**, auth: required, accept: [clerk_api_key]")

    (problem,) = problems_of(tmp_path, text)

    assert text.splitlines()[(problem.line or 0) - 1].strip().startswith("- {path: /**")
    assert "clerk.secret_key" in problem.message


def test_a_machine_has_an_id_of_clerks(tmp_path: Path) -> None:
    assert keys_of(tmp_path, _with_clerk(f"{OIDC}, machine_id: mch_2abc}}")) == []
    assert keys_of(tmp_path, _with_clerk(f"{OIDC}, machine_id: user_2abc}}")) == ["clerk.machine_id"]
