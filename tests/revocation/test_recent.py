"""What counts of something that was read at a version, against a memory that never forgets."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.revocation.changes import AnythingChanged, Change, OrganizationChanged, PersonChanged, ids_of
from gateway.revocation.recent import RecentChanges

IDS = [f"usr_{number}" for number in range(8)]
CHANGES = st.one_of(
    st.sampled_from(IDS).map(PersonChanged),
    st.sampled_from(IDS).map(OrganizationChanged),
    st.just(AnythingChanged()),
)


@given(st.lists(CHANGES, max_size=40), st.integers(0, 45), st.sampled_from(IDS), st.integers(1, 5))
def test_nothing_that_changed_after_it_was_read_ever_counts(
    changes: list[Change], read_at: int, name: str, most: int
) -> None:
    recent = RecentChanges(most)
    for version, change in enumerate(changes, 1):
        recent.hear(version, [change])

    really = any(
        version > read_at and (isinstance(change, AnythingChanged) or name in ids_of(change))
        for version, change in enumerate(changes, 1)
    )
    assert recent.changed_since(read_at, name) or not really


def test_what_did_not_change_counts() -> None:
    recent = RecentChanges()
    recent.hear(1, [PersonChanged("usr_a")])
    recent.hear(2, [PersonChanged("usr_b")])

    assert not recent.changed_since(1, "usr_a", "org_a")
    assert recent.changed_since(1, "usr_b")
    assert recent.changed_since(0, "usr_a")


def test_after_a_gap_nothing_counts_that_was_read_before() -> None:
    recent = RecentChanges()
    recent.start(10)

    assert recent.changed_since(9, "usr_a")
    assert not recent.changed_since(10, "usr_a")


def test_a_change_of_our_own_counts_before_it_has_a_version_and_so_does_a_second_one() -> None:
    recent, change = RecentChanges(), PersonChanged("usr_a")
    recent.foresee([change])
    recent.foresee([change])
    before = recent.changed_since(99, "usr_a")
    recent.hear(1, [change])
    recent.came_true([change])
    between = recent.changed_since(99, "usr_a")
    recent.hear(2, [change])
    recent.came_true([change])

    assert (before, between) == (True, True)
    assert not recent.changed_since(2, "usr_a")
    assert recent.changed_since(1, "usr_a")
