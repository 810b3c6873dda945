import base64
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.errors import CursorInvalid
from provisioning.ids import format_id
from provisioning.pages import FIRST, LAST, Page, Place, page_of, place_of

moments = st.integers(0, 95_000_000_000_000_000).map(lambda number: FIRST.at + timedelta(microseconds=number))
places = st.builds(Place, moments, st.integers(0, 2**128 - 1).map(lambda number: format_id("usr", number)))


@given(places)
def test_a_cursor_names_its_place_and_fits_a_query(place: Place) -> None:
    cursor = place.cursor()

    assert place_of(cursor) == place
    assert cursor.isascii()
    assert cursor.replace("-", "").replace("_", "").isalnum()


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_anything_else_is_no_cursor(text: str) -> None:
    with pytest.raises(CursorInvalid):
        place_of(text)


ZERO = "usr_0000000000000000000000"


@pytest.mark.parametrize("text", ["1.usr_x", f"-1.{ZERO}", f"{10**17}.{ZERO}", f"1.{ZERO}.1", "1"])
def test_what_nearly_is_a_place_is_no_cursor(text: str) -> None:
    with pytest.raises(CursorInvalid):
        place_of(base64.urlsafe_b64encode(text.encode()).decode().rstrip("="))


@given(places)
def test_every_place_lies_between_the_ends(place: Place) -> None:
    assert (FIRST.at, FIRST.id) < (place.at, place.id) < (LAST.at, LAST.id)


@given(st.lists(places, max_size=6), st.integers(1, 6))
def test_a_page_goes_on_only_where_there_is_more(rows: list[Place], limit: int) -> None:
    page: Page[Place] = page_of(rows[: limit + 1], limit, lambda place: place)

    assert page.items == tuple(rows[:limit])
    assert page.last == (rows[limit - 1] if len(rows) > limit else None)
