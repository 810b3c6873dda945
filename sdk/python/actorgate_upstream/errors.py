"""What can be wrong with an assertion."""

from typing import ClassVar


class AssertionRefused(Exception):
    """The request cannot be told who it is from.

    Attributes:
        status: How HTTP says so.
        code: A stable word.
    """

    status: ClassVar[int] = 401
    code: ClassVar[str] = "assertion_invalid"


class AssertionMissing(AssertionRefused):
    """There is none, or an empty one: the request came past the gateway, or from nobody."""

    code = "assertion_missing"


class AssertionInvalid(AssertionRefused):
    """It was checked and is bad; the text says how, for logs."""


class KeysUnavailable(AssertionRefused):
    """The gateway's keys cannot be had now: neither good nor bad."""

    status = 503
    code = "keys_unavailable"
