"""Whose count a request falls under, and what can be read from its name."""

from hypothesis import given
from hypothesis import strategies as st

from config.model import RateLimit
from config.rates import Rate
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.limits.keys import Keys, claimed_id, network_of
from gateway.limits.rules import Rule

KEYS = Keys(bytes(range(32)))
API = Rule.of("api", RateLimit(limit=Rate(5, 60)))
WORDS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.tuples(WORDS, WORDS), st.tuples(WORDS, WORDS))
def test_different_people_never_share_a_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (KEYS.key(API, *one) == KEYS.key(API, *other)) is (one == other)


@given(st.text())
def test_any_text_makes_a_key_that_only_the_secret_could_have_made(value: str) -> None:
    key = KEYS.key(API, "user", value)

    assert len(key) == 32
    assert key != Keys(bytes(32)).key(API, "user", value)


def test_a_changed_limit_counts_under_another_key() -> None:
    changed = [Rule.of("api", RateLimit(limit=Rate(*rate))) for rate in ((5, 61), (6, 60))]
    renamed = Rule.of("web", RateLimit(limit=Rate(5, 60)))

    assert len({KEYS.key(rule, "user", "usr_1") for rule in (API, renamed, *changed)}) == 4


def test_an_address_counts_as_what_its_client_cannot_change() -> None:
    assert network_of("192.0.2.7") == "192.0.2.7"
    assert network_of("2001:db8::1:2:3") == network_of("2001:db8::ffff") == "2001:db8::/64"
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8::1")
    assert network_of("") == ""


def test_an_id_is_claimed_in_one_spelling() -> None:
    def claimed(text: str) -> str:
        return claimed_id(Credential(CredentialKind.API_TOKEN, Carrier.HEADER, text))

    assert claimed("agt_AbCdEfGhIjKl" + "0" * 49) == claimed("agt_aBcDeFgHiJkL" + "1" * 49) == "abcdefghijkl"
    assert claimed("agt_ＡbCdEfGhIjKl") == "abcdefghijkl"


@given(st.text(), st.sampled_from(list(CredentialKind)))
def test_an_id_is_read_from_any_text_or_not_at_all(text: str, kind: CredentialKind) -> None:
    assert len(claimed_id(Credential(kind, Carrier.HEADER, text))) <= 20_000
