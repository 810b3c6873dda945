"""The index over caches: everything held is found, and what is not held any more is let go."""

from cachebox import LRUCache
from hypothesis import given
from hypothesis import strategies as st

from gateway.verify.holdings import Holdings

ADDITIONS = st.lists(st.tuples(st.sampled_from("abcde"), st.binary(min_size=1, max_size=1)), max_size=200)


def watched(*sizes: int) -> tuple[Holdings, list[LRUCache[bytes, str]]]:
    holdings = Holdings()
    caches: list[LRUCache[bytes, str]] = [LRUCache(size) for size in sizes]
    holdings.watch(*caches)
    return holdings, caches


def test_forgetting_somebody_leaves_the_others() -> None:
    holdings, (one, two) = watched(10, 10)
    for cache in (one, two):
        for owner, digest in (("ann", b"1"), ("ann", b"2"), ("bob", b"3")):
            cache.insert(digest, owner)
            holdings.add(owner, digest)

    holdings.forget("ann")

    assert [set(cache) for cache in (one, two)] == [{b"3"}, {b"3"}]
    assert len(holdings) == 1


@given(ADDITIONS, st.integers(1, 20))
def test_forgetting_drops_all_that_a_cache_holds_for_somebody(additions: list[tuple[str, bytes]], size: int) -> None:
    holdings, (small, large) = watched(size, 3 * size)
    for owner, digest in additions:
        for cache in (small, large):
            cache.insert(owner.encode() + digest, owner)
        holdings.add(owner, owner.encode() + digest)

    holdings.forget("a")

    assert "a" not in {owner for cache in (small, large) for owner in cache.values()}


def test_index_stays_near_what_caches_hold() -> None:
    holdings, (cache,) = watched(100)
    for number in range(20_000):
        digest = number.to_bytes(4, "big")
        cache.insert(digest, "")
        holdings.add(f"usr_{number}", digest)

    assert len(holdings) <= 300
