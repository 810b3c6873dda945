from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.profile import (
    EMAIL_LENGTH,
    NAME_LENGTH,
    Profile,
    clean_email,
    clean_name,
    filled,
    personal_organization_name,
)

any_text = st.none() | st.text(st.characters(codec=None))


@settings(max_examples=200, deadline=None)
@given(any_text)
def test_a_clean_name_is_one_line_that_postgresql_can_store(text: str | None) -> None:
    name = clean_name(text)

    if name is not None:
        assert 0 < len(name) <= NAME_LENGTH
        assert "\0" not in name
        assert name.splitlines() == [name]
        assert clean_name(name) == name
        name.encode()


@settings(max_examples=200, deadline=None)
@given(any_text | st.emails())
def test_a_clean_email_is_kept_as_it_is(text: str | None) -> None:
    email = clean_email(text)

    if email is not None:
        assert text is not None
        assert email == text.strip()
        assert len(email) <= EMAIL_LENGTH
        email.encode()


def test_claims_come_before_what_clerk_says() -> None:
    profile = filled(Profile("From Claim"), Profile("From Clerk", "clerk@example.com"))

    assert profile == Profile("From Claim", "clerk@example.com")


def test_personal_organization_is_named_after_its_person() -> None:
    assert personal_organization_name(Profile("Alice", "a@example.com")) == "Alice"
    assert personal_organization_name(Profile(None, "ali@example.com")) == "ali"
    assert personal_organization_name(Profile()) == "Personal"


def test_an_email_is_not_shown_in_a_repr() -> None:
    assert "example.com" not in repr(Profile("Alice", "alice@example.com"))
