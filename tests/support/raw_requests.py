"""Request streams as hostile and as ordinary clients send them: Hypothesis strategies that give bytes.

Most parts of most requests are in order, so that an odd one meets a request that is otherwise taken seriously. Tokens
are written as `{good}` and the like, for the test to fill in: no example may depend on when it was made.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import assume
from hypothesis import strategies as st

from tests.support import request_words as words
from tests.support.exchanges import split

T = TypeVar("T")
Draw = st.DrawFn
ONE_READ = 90_000
"""Bytes that a socket takes and gives at once: a piece is not to be cut by chance."""


def shown(raw: bytes) -> str:
    """Bytes for a report, with long runs of one octet, and long bodies, in short."""
    text = re.sub(r"(\\x..|.)\1{30,}", lambda run: f"{run[1]}<{len(run[0])} times>", repr(raw))
    return text if len(text) < 4000 else f"{text[:2000]}<…>{text[-500:]}"


class Shown:
    """Reports itself to Hypothesis by its own `repr`, not by its fields."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


@dataclass(frozen=True, repr=False)
class Sent(Shown):
    """What a client sends.

    Attributes:
        stream: Bytes with places for tokens.
        cuts: Where they are cut.
        pauses: Whether to wait behind each piece, over and over, until nothing moves any more.
    """

    stream: bytes
    cuts: list[int]
    pauses: list[bool]

    def __repr__(self) -> str:
        return f"Sent({shown(self.stream)}, {self.cuts}, {self.pauses})"

    def pieces(self, tokens: Mapping[bytes, bytes]) -> list[tuple[bytes, bool]]:
        """The pieces, each with its pause."""
        stream = self.stream
        for name, token in tokens.items():
            stream = stream.replace(b"{%b}" % name, token)
        return list(zip(split(stream, self.cuts), itertools.cycle(self.pauses), strict=False))


def rarely(usual: st.SearchStrategy[T], odd: st.SearchStrategy[T], one_in: int = 12) -> st.SearchStrategy[T]:
    """The odd one now and then; Hypothesis tries both ends of a range more often than what is between."""
    return st.integers(0, one_in - 1).flatmap(lambda choice: odd if choice == one_in // 2 else usual)


def one_of(values: Sequence[T]) -> st.SearchStrategy[T]:
    return st.sampled_from(values)


ENDS = rarely(st.just(b"\r\n"), one_of([b"\n", b"\r", b"\n\r", b"\r\r\n", b""]), 150)
UNUSUAL = rarely(one_of(words.ODD_FIELDS), one_of(words.CREDENTIALS), 3)
LINES = st.lists(
    rarely(rarely(one_of(words.FIELDS), UNUSUAL, 2), one_of(words.BROKEN_FIELDS), 60), max_size=7, unique=True
)
HOSTS = rarely(st.just([words.HOST]), one_of(words.ODD_HOSTS), 15)
SPACES = rarely(st.just(b" "), one_of([b"  ", b"\t", b"", b" \t"]), 100)
SIZED = rarely(st.just(0), one_of([-1, 1, 3]), 10)


@st.composite
def chunks(draw: Draw, body: bytes) -> bytes:
    """A body in chunks, mostly sound ones."""
    parts = split(body, draw(st.lists(st.integers(0, 80_000), max_size=3))) if body else []
    out = []
    for part in [*filter(None, parts), b""]:
        size = draw(rarely(st.just(b"%x"), one_of(words.ODD_SIZES), 25))
        size = size % len(part) if b"%" in size else size
        extension, end = draw(rarely(st.just(b""), one_of(words.EXTENSIONS), 6)), draw(ENDS)
        out.append(size + extension + end + part + (draw(ENDS) if part else b""))
    return b"".join(out) + draw(one_of(words.TRAILERS)) + draw(ENDS)


@st.composite
def framed(draw: Draw, with_body: bool) -> tuple[list[bytes], bytes]:
    """Framing fields, and a body that mostly is what they say."""
    kind = draw(rarely(one_of(["length", "chunked"] if with_body else ["none"]), one_of(["both", "odd", "odd"]), 8))
    body = draw(one_of(words.BODIES)) if kind != "none" else b""
    length = b"Content-Length: %d" % max(0, len(body) + draw(SIZED)) if kind in ("length", "both") else b""
    if kind == "none":
        return [], b""
    if kind == "length":
        return [length], body
    if kind == "chunked":
        return [b"Transfer-Encoding: chunked"], draw(chunks(body))
    if kind == "both":
        return draw(st.permutations([length, b"Transfer-Encoding: chunked"])), draw(
            st.one_of(st.just(body), chunks(body))
        )
    if draw(st.booleans()):
        return [b"Content-Length: " + draw(one_of(words.ODD_LENGTHS))], body
    return [b"Transfer-Encoding: " + draw(one_of(words.ODD_CODINGS))], draw(chunks(body))


@st.composite
def requests(draw: Draw, number: int) -> bytes:
    """One request, with its number in the target."""
    method = draw(rarely(one_of(words.METHODS), one_of(words.ODD_METHODS), 30))
    target = draw(rarely(one_of(words.PATHS), one_of(words.ODD_TARGETS), 8))
    target = target % number if b"%d" in target else target.replace(b"%%", b"%")
    version = draw(rarely(st.just(b"HTTP/1.1"), one_of(words.ODD_VERSIONS), 12))
    with_body = draw(rarely(st.just(method in (b"POST", b"PUT", b"PATCH")), st.booleans(), 6))
    framing, body = draw(framed(with_body))
    lines = [
        *draw(HOSTS),
        *draw(LINES),
        *framing,
        *[b"X-Fill: v"] * draw(rarely(st.just(0), st.integers(115, 130), 25)),
    ]
    if draw(st.booleans()):
        lines = draw(st.permutations(lines))
    first = method + draw(SPACES) + target + draw(SPACES) + version + draw(ENDS)
    blanks = draw(rarely(st.just(b""), one_of([b"\r\n", b"\r\n\r\n", b"\n", b" "]), 15))
    return blanks + first + b"".join(line + draw(ENDS) for line in lines) + draw(ENDS) + body


@st.composite
def streams(draw: Draw) -> Sent:
    """Several requests on one connection, perhaps damaged, cut into pieces with pauses between."""
    made = [draw(requests(number)) for number in range(draw(st.integers(1, 4)))]
    if draw(rarely(st.just(False), st.just(True), 5)):
        made = made[:2] * 4  # what a lane remembers of a head must be what it said of it first
    stream = b"".join(made)
    heads = [place.end() for place in re.finditer(b"\r\n\r\n", stream)] or [0]
    for _ in range(draw(rarely(st.just(0), st.integers(1, 2), 12))):
        place, wedge = draw(st.integers(0, len(stream))), draw(one_of(words.WEDGES))
        stream = stream[:place] + wedge + stream[place + draw(st.integers(0, 3)) :]
    assume(len(stream) < ONE_READ)
    cuts = [draw(st.one_of(one_of(heads), st.integers(0, 2 * len(stream)))) for _ in range(draw(st.integers(0, 4)))]
    return Sent(stream, cuts, draw(st.lists(st.booleans(), min_size=1, max_size=6)))
