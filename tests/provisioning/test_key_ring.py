"""The key ring over a real PostgreSQL: one ring for all replicas, from the first start over rotations and outages."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioning.database.pool import Database
from provisioning.errors import DatabaseUnavailable, KeysUnopened, RingEmpty, SignatureRejected
from provisioning.key_ring import COOLDOWN_S, KeyRing
from tests.support.postgres import PostgresServer
from tests.support.rings import DAY, HOUR, RULES, Clock, claims_for, records_over, ring_over, started
from tests.support.tokens import execute

OTHER_MASTER_KEY = "another-key-of-these-tests-with-enough-characters"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ring(database: Database, clock: Clock) -> AsyncIterator[KeyRing]:
    async with started(ring_over(database, clock)) as opened:
        yield opened


async def look(ring: KeyRing, clock: Clock) -> None:
    """Let a ring look into PostgreSQL, past its cool-down."""
    clock.now += COOLDOWN_S
    await ring.refresh()


def header_of(token: str) -> dict[str, object]:
    return jwt.get_unverified_header(token)


def refusal(ring: KeyRing, token: str, audience: str = "app") -> str:
    with pytest.raises(SignatureRejected) as refused:
        ring.verify(token, audience=audience)
    return refused.value.reason


def rewritten(token: str, header: dict[str, object]) -> str:
    text = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return ".".join([text, *token.split(".")[1:]])


async def test_what_a_ring_signs_is_an_es256_jwt_that_it_verifies(ring: KeyRing, clock: Clock) -> None:
    token = ring.sign(claims_for(clock))

    assert header_of(token) == {"alg": "ES256", "typ": "JWT", "kid": ring.keys[0].kid}
    assert ring.verify(token, audience="app") == claims_for(clock)


async def test_anybody_can_verify_with_the_public_keys(ring: KeyRing, clock: Clock) -> None:
    token = ring.sign(claims_for(clock))
    (published,) = ring.public_keys()
    key = jwt.PyJWK(published)

    assert published.keys() == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert jwt.decode(token, key, ["ES256"], audience="app", options={"verify_iat": False})["sub"] == "usr_1"


async def test_two_replicas_hold_one_ring(database: Database, ring: KeyRing, clock: Clock) -> None:
    async with started(ring_over(database, clock)) as other:
        assert other.public_keys() == ring.public_keys()
        assert other.verify(ring.sign(claims_for(clock)), audience="app")["sub"] == "usr_1"


async def test_replicas_that_start_together_for_the_first_time_make_one_key(database: Database, clock: Clock) -> None:
    rings = [ring_over(database, clock) for _ in range(8)]
    await asyncio.gather(*(ring.start() for ring in rings))
    kids = {key.kid for ring in rings for key in ring.keys}
    await asyncio.gather(*(ring.close() for ring in rings))

    assert len(kids) == 1
    assert len(await records_over(database).read()) == 1


async def test_private_keys_are_sealed(database: Database, ring: KeyRing) -> None:
    (row,) = await records_over(database).read()
    scalar = ring.keys[0].private_key.private_numbers().private_value.to_bytes(32, "big")

    assert scalar not in row.sealed
    assert "sealed" not in repr(row)
    assert "private" not in repr(ring.keys[0])


async def test_another_master_key_refuses_the_start_and_changes_nothing(
    database: Database, ring: KeyRing, clock: Clock
) -> None:
    clock.now += 100 * DAY  # a rotation is due
    with pytest.raises(KeysUnopened, match=r"^cannot open the signing keys: .*secrets\.master_key") as refused:
        await ring_over(database, clock, master_key=OTHER_MASTER_KEY).start()

    assert OTHER_MASTER_KEY not in str(refused.value)
    assert [row.kid for row in await records_over(database).read()] == [ring.keys[0].kid]


@pytest.mark.parametrize("place", [0, 5, 20, -1], ids=["form", "nonce", "ciphertext", "tag"])
async def test_a_tampered_key_refuses_the_start(database: Database, ring: KeyRing, clock: Clock, place: int) -> None:
    (row,) = await records_over(database).read()
    sealed = bytearray(row.sealed)
    sealed[place] ^= 1
    await execute(database, "UPDATE signing_keys SET sealed = $1", bytes(sealed))

    with pytest.raises(KeysUnopened):
        await ring_over(database, clock).start()


async def test_a_key_under_the_name_of_another_does_not_open(database: Database, ring: KeyRing, clock: Clock) -> None:
    await execute(database, "UPDATE signing_keys SET kid = 'another'")

    with pytest.raises(KeysUnopened):
        await ring_over(database, clock).start()


async def test_a_running_ring_keeps_its_keys_when_a_new_one_does_not_open(
    database: Database, ring: KeyRing, clock: Clock
) -> None:
    await records_over(database, OTHER_MASTER_KEY).rotate(clock() + HOUR, clock())
    await look(ring, clock)

    assert len(ring.keys) == 1
    assert ring.verify(ring.sign(claims_for(clock)), audience="app")


async def test_the_next_key_is_published_before_it_signs_and_the_last_one_verifies_after(
    database: Database, ring: KeyRing, clock: Clock
) -> None:
    first, began = ring.keys[0].kid, clock()

    clock.now = began + RULES.rotate_every - HOUR - COOLDOWN_S
    await look(ring, clock)
    old_token = ring.sign(claims_for(clock, exp=began + 60 * DAY))
    published = [key["kid"] for key in ring.public_keys()]
    clock.now = began + RULES.rotate_every + 1
    new_token = ring.sign(claims_for(clock))
    second = header_of(new_token)["kid"]

    assert header_of(old_token)["kid"] == first
    assert published == [first, second]
    assert second != first
    assert ring.verify(old_token, audience="app")

    clock.now = began + RULES.rotate_every + RULES.keep_for
    assert refusal(ring, old_token) == "kid_unknown"
    assert [key["kid"] for key in ring.public_keys()] == [second]

    await look(ring, clock)
    assert [row.kid for row in await records_over(database).read()] == [second]


async def test_replicas_that_rotate_together_make_one_key(database: Database, clock: Clock) -> None:
    rings = [ring_over(database, clock) for _ in range(4)]
    await asyncio.gather(*(ring.start() for ring in rings))
    clock.now += RULES.rotate_every

    await asyncio.gather(*(ring.refresh() for ring in rings))
    clock.now += COOLDOWN_S
    await asyncio.gather(*(ring.refresh() for ring in rings))
    kids = [[key.kid for key in ring.keys] for ring in rings]
    await asyncio.gather(*(ring.close() for ring in rings))

    assert [len(found) for found in kids] == [2] * 4
    assert all(found == kids[0] for found in kids)


async def test_a_ring_that_missed_its_rotation_publishes_ahead_all_the_same(
    ring: KeyRing, database: Database, clock: Clock
) -> None:
    first = ring.keys[0].kid
    clock.now += 10 * RULES.rotate_every
    await look(ring, clock)

    assert header_of(ring.sign(claims_for(clock)))["kid"] == first
    assert ring.keys[1].signs_from == clock() + RULES.publish_ahead


async def test_an_unknown_key_of_another_replica_is_found_by_refreshing(
    database: Database, ring: KeyRing, clock: Clock
) -> None:
    await records_over(database).rotate(clock(), clock())
    async with started(ring_over(database, clock)) as other:
        token = other.sign(claims_for(clock))
    before = refusal(ring, token)

    await look(ring, clock)

    assert before == "kid_unknown"
    assert ring.verify(token, audience="app")


async def test_a_flood_of_unknown_keys_asks_postgresql_once_per_cool_down(
    database: Database, ring: KeyRing, clock: Clock
) -> None:
    clock.now += COOLDOWN_S
    lent = database.connections_lent
    await asyncio.gather(*(ring.refresh() for _ in range(50)))
    await ring.refresh()

    assert database.connections_lent - lent == 1


async def test_discarded_keys_are_worth_nothing_and_say_so(database: Database, ring: KeyRing, clock: Clock) -> None:
    token, generation = ring.sign(claims_for(clock)), ring.generation
    await records_over(database).rotate(clock(), clock(), discard=True)
    await look(ring, clock)

    assert refusal(ring, token) == "kid_unknown"
    assert ring.generation == generation + 1
    assert ring.verify(ring.sign(claims_for(clock)), audience="app")


async def test_all_keys_can_be_given_up_when_the_master_key_is_lost(
    database: Database, ring: KeyRing, clock: Clock
) -> None:
    await records_over(database, OTHER_MASTER_KEY).rotate(clock(), clock(), discard=True)

    async with started(ring_over(database, clock, master_key=OTHER_MASTER_KEY)) as other:
        assert other.verify(other.sign(claims_for(clock)), audience="app")


async def test_signing_goes_on_while_postgresql_is_away(postgres_server: PostgresServer, clock: Clock) -> None:
    async with (
        Database(postgres_server.url) as database,
        started(ring_over(database, clock)) as ring,
    ):
        await postgres_server.stop()
        clock.now += COOLDOWN_S
        with pytest.raises(DatabaseUnavailable):
            await ring.refresh()
        with pytest.raises(DatabaseUnavailable):  # within the cool-down: nobody can tell
            await ring.refresh()

        assert ring.verify(ring.sign(claims_for(clock)), audience="app")


async def test_a_ring_without_keys_neither_signs_nor_judges(postgres_server: PostgresServer, clock: Clock) -> None:
    await postgres_server.stop()
    async with Database(postgres_server.url) as database, started(ring_over(database, clock)) as ring:
        with pytest.raises(RingEmpty):
            ring.sign(claims_for(clock))
        with pytest.raises(RingEmpty):
            ring.verify("a.b.c", audience="app")

        assert ring.public_keys() == []


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"aud": "other"}, "audience"),
        ({"aud": ["app"]}, "audience"),
        ({"aud": None}, "audience"),
        ({"iss": "https://other.example"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"exp": None}, "claims"),
        ({"iat": None}, "claims"),
        ({"exp": "1900000000"}, "claims"),
        ({"exp": True}, "claims"),
        ({"exp": 1_799_999_990}, "expired"),
        ({"iat": 1_800_000_010}, "not_yet"),
        ({"nbf": 1_800_000_010}, "not_yet"),
        ({"nbf": "soon"}, "claims"),
    ],
)
async def test_claims_that_do_not_fit_are_refused(
    ring: KeyRing, clock: Clock, changes: dict[str, object], reason: str
) -> None:
    assert refusal(ring, ring.sign(claims_for(clock, **changes))) == reason


async def test_clocks_of_replicas_may_differ_a_little(ring: KeyRing, clock: Clock) -> None:
    assert ring.verify(ring.sign(claims_for(clock, exp=clock() - 4, iat=clock() + 4)), audience="app")


async def test_no_other_algorithm_is_taken(ring: KeyRing, clock: Clock) -> None:
    claims, key = claims_for(clock), ring.keys[0]
    pem = key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    good = ring.sign(claims)
    body = ".".join(good.split(".")[:2])
    hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)

    def signed_hs256(secret: bytes) -> str:
        unsigned = rewritten(good, {"alg": "HS256", "typ": "JWT", "kid": key.kid}).rpartition(".")[0]
        mac = hmac.sign(unsigned.encode(), secret)
        return f"{unsigned}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    for secret in (pem, json.dumps(key.jwk).encode()):
        assert refusal(ring, signed_hs256(secret)) == "malformed"  # no signature of 64 bytes
    assert refusal(ring, rewritten(good, {"alg": "none", "kid": key.kid})) == "algorithm"
    assert refusal(ring, jwt.encode(claims, "", algorithm="none", headers={"kid": key.kid})) == "malformed"
    assert refusal(ring, rewritten(good, {"alg": "es256", "kid": key.kid})) == "algorithm"
    assert refusal(ring, f"{body}.") == "malformed"


async def test_a_key_that_is_not_the_rings_is_refused(ring: KeyRing, clock: Clock) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    claims, kid = claims_for(clock), ring.keys[0].kid

    assert refusal(ring, jwt.encode(claims, stranger, algorithm="ES256", headers={"kid": kid})) == "signature"
    assert refusal(ring, jwt.encode(claims, stranger, algorithm="ES256", headers={"kid": "x"})) == "kid_unknown"
    assert refusal(ring, jwt.encode(claims, stranger, algorithm="ES256")) == "kid_unknown"
    with_key = {"kid": "x", "jwk": ring.keys[0].jwk, "jku": "https://evil.example/jwks.json"}
    assert refusal(ring, jwt.encode(claims, stranger, algorithm="ES256", headers=with_key)) == "kid_unknown"


@pytest.mark.parametrize("text", ["", ".", "..", "a.b", "a.b.c.d", "ä.ö.ü", "e30.e30.e30", "bnVsbA.e30.", "\0"])
async def test_junk_is_refused(ring: KeyRing, text: str) -> None:
    assert refusal(ring, text) in {"malformed", "algorithm"}


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(max_size=80), st.lists(st.text(max_size=20), min_size=3, max_size=3).map(".".join)))
async def test_whatever_is_presented_is_refused_with_a_word(ring: KeyRing, text: str) -> None:
    assert refusal(ring, text) in {"malformed", "algorithm", "kid_unknown"}


async def test_a_token_has_one_spelling(ring: KeyRing, clock: Clock) -> None:
    token = ring.sign(claims_for(clock))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    for letter in letters.replace(token[-1], ""):  # some of them stand for the same 64 bytes
        refusal(ring, token[:-1] + letter)
    for odd in (f"{token}=", f"{token}\n", f"{token[:-3]}!{token[-3:]}"):
        assert refusal(ring, odd) == "malformed"


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
async def test_any_single_changed_character_is_refused(ring: KeyRing, clock: Clock, data: st.DataObject) -> None:
    token = ring.sign(claims_for(clock))
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."))
    changed = token[:place] + letter + token[place + 1 :]

    if changed != token:
        refusal(ring, changed)
