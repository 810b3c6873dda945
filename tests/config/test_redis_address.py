"""What a `redis.url` may be."""

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.redis_address import RedisAddress, RedisKind, parse_redis_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", RedisAddress(RedisKind.SERVER, (("localhost", 6379),))),
        ("redis://10.0.0.1:6380/3", RedisAddress(RedisKind.SERVER, (("10.0.0.1", 6380),), database=3)),
        ("redis://[::1]:6380", RedisAddress(RedisKind.SERVER, (("::1", 6380),))),
        ("rediss://:word@r.example/", RedisAddress(RedisKind.SERVER, (("r.example", 6379),), True, None, "word")),
        ("redis://gw:a%40b@r", RedisAddress(RedisKind.SERVER, (("r", 6379),), False, "gw", "a@b")),
        ("unix:///run/redis.sock", RedisAddress(RedisKind.SOCKET, path="/run/redis.sock")),
        ("redis+cluster://a:1,b,c:3", RedisAddress(RedisKind.CLUSTER, (("a", 1), ("b", 6379), ("c", 3)))),
        (
            "rediss+sentinel://gw:word@a,b:2/main/1",
            RedisAddress(RedisKind.SENTINEL, (("a", 26379), ("b", 2)), True, "gw", "word", 1, "main"),
        ),
    ],
)
def test_an_address_is_read(url: str, address: RedisAddress) -> None:
    assert parse_redis_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "REDIS://localhost",
        "redis:localhost",
        "redis://",
        "redis://a,b",
        "redis://a:0",
        "redis://a:65536",
        "redis://a/x",
        "redis://a/0/1",
        "redis://a?db=1",
        "redis://a#1",
        "redis://a b",
        "redis://ä",
        "redis+cluster://a/1",
        "redis+cluster://a,",
        "redis+sentinel://a",
        "redis+sentinel://a/ma in",
        "unix://host/redis.sock",
        "unix:///",
    ],
)
def test_anything_else_is_refused_with_what_to_write_instead(url: str) -> None:
    with pytest.raises(ValueError, match=r"redis|Redis|socket|master"):
        parse_redis_url(url)


WORD = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)


@given(WORD, WORD, st.integers(1, 0xFFFF), st.integers(0, 99))
def test_any_user_and_password_survive_their_encoding(user: str, password: str, port: int, database: int) -> None:
    address = parse_redis_url(f"redis://{quote(user, safe='')}:{quote(password, safe='')}@host:{port}/{database}")

    assert (address.user, address.password, address.hosts, address.database) == (
        user,
        password,
        (("host", port),),
        database,
    )
    assert re.search(r"password", repr(address)) is None


@given(st.text(max_size=60).map(lambda text: f"redis://gw:hunter22@{text}"))
def test_no_refusal_tells_the_password(url: str) -> None:
    told = ""
    try:
        parse_redis_url(url)
    except ValueError as error:
        told = str(error)

    assert "hunter22" not in told
