"""Ids of our own: a prefix that says what it names, and 128 random bits in base62.

They are random, not counted, so that an id tells nothing about how many there are and cannot be guessed.
"""

import re
import secrets
from typing import Literal

Prefix = Literal["usr", "org", "atk", "sub", "evt"]

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LENGTH = 22  # 62 ** 22 is a little more than 2 ** 128
BITS = 128
_VALUES = {letter: value for value, letter in enumerate(ALPHABET)}
_SHAPE = re.compile(r"(usr|org|atk|sub|evt)_([0-9A-Za-z]{22})")


def new_id(prefix: Prefix) -> str:
    """Make an id such as `usr_0uWRLl1ixn3tF8TT5bxBpY`."""
    return format_id(prefix, secrets.randbits(BITS))


def format_id(prefix: Prefix, number: int) -> str:
    """Write a number below 2 ** 128 as an id.

    Raises:
        ValueError: The number is outside.
    """
    if not 0 <= number < 1 << BITS:
        raise ValueError("an id holds 128 bits")
    return f"{prefix}_{base62(number, LENGTH)}"


def base62(number: int, length: int) -> str:
    """Write the lowest `length` digits of a number that is not negative, zeros in front."""
    letters = []
    for _ in range(length):
        number, value = divmod(number, 62)
        letters.append(ALPHABET[value])
    return "".join(reversed(letters))


def parse_id(prefix: Prefix, text: str) -> int:
    """Read the number of an id of this kind.

    Raises:
        ValueError: Another kind, or not an id.
    """
    match = _SHAPE.fullmatch(text)
    if match is None or match[1] != prefix:
        raise ValueError(f"not an id that begins with {prefix}_")
    number = 0
    for letter in match[2]:
        number = number * 62 + _VALUES[letter]
    if number >> BITS:
        raise ValueError("an id holds 128 bits")
    return number


def is_id(prefix: Prefix, text: str) -> bool:
    """Whether `text` is an id of this kind: check before asking the database for what a caller named."""
    try:
        parse_id(prefix, text)
    except ValueError:
        return False
    return True
