"""Field sections judged lately: clients repeat theirs, and what they say does not change. Pure, but for its memory.

Two memories. The first knows whole sections: most requests end here, with one hash. The second knows sections without
the lines that differ from user to user and from request to request (`head.take_changing`), so that a thousand users of
one application share one judgement, and a new trace context costs little.

Both keep hashes instead of sections, and the first a hash instead of the token; a judgement that holds another
credential field is not kept. What else a client sends (cookies, fields of the application) stays for as long as it is
sent, and for one or two generations: then what nobody sends any more is gone (docs/decisions/013).
"""

from hashlib import sha256
from typing import Generic, TypeVar

from gateway.edge import slots
from gateway.edge.head import END_OF_HEAD, Head, judge_head, split_fields, take_changing

SECTIONS = 32_768
"""Whole sections of one generation, some 300 bytes each."""
HEADS = 2048
"""Judgements of one generation, some kilobytes each."""
LONGEST = 4096
"""Bytes of a section that is remembered."""
T = TypeVar("T")


class Seen:
    """What is known of a field section.

    Attributes:
        head: Its judgement, without what follows.
        bearer: SHA-256 of the token of `Authorization: Bearer`, None when there is none in that spelling.
        content_length: Bytes of the body, None when the head tells.
        note: What a later room keeps here of the bearer, its own to believe; it saves a look-up.
    """

    __slots__ = ("bearer", "content_length", "head", "note")

    def __init__(self, head: Head, bearer: bytes | None, content_length: int | None) -> None:
        self.head = head
        self.bearer = bearer
        self.content_length = content_length
        self.note: object | None = None


class _Generations(Generic[T]):
    """Forgets what was not asked for during one or two generations."""

    __slots__ = ("_capacity", "_new", "_old")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._new: dict[bytes, T] = {}
        self._old: dict[bytes, T] = {}

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def get(self, digest: bytes) -> T | None:
        found = self._new.get(digest)
        if found is None:
            found = self._old.pop(digest, None)
            if found is not None:
                self.put(digest, found)
        return found

    def put(self, digest: bytes, content: T) -> None:
        if len(self._new) >= self._capacity:
            self.grow_old()
        self._new[digest] = content

    def grow_old(self) -> None:
        self._old, self._new = self._new, {}


class RecentHeads:
    """What all connections of a lane remember together."""

    __slots__ = ("_heads", "_once", "_once_capacity", "_sections")

    def __init__(self, sections: int = SECTIONS, heads: int = HEADS) -> None:
        """Remember nothing yet; each of the two memories keeps at most two generations of these sizes."""
        self._sections: _Generations[Seen] = _Generations(sections)
        self._heads: _Generations[Head] = _Generations(heads)
        self._once: set[bytes] = set()
        self._once_capacity = heads

    def __len__(self) -> int:
        return len(self._sections) + len(self._heads)

    def judged(self, data: bytes, start: int, end: int) -> tuple[Seen, bytes, bytes | None, int] | None:
        """Judge a field section, or remember how it was judged.

        Args:
            data: Begins with a request line.
            start: Where that line ends, behind its CRLF.
            end: Where the head ends, or a later end of a head: then no section up to there is remembered.

        Returns:
            What is known; the section, each line with a CRLF before it; the traceparent, when it is not among what is
            known; and where the head ends. None when the section is not of the plain shape, or holds twice what must
            be there once.

        Raises:
            RequestMalformed: And its kin: the first part that cannot stand.
        """
        section = data[start - 2 : end + 2]
        digest = sha256(section).digest()
        seen = self._sections.get(digest)
        if seen is not None:
            return seen, section, None, end
        first_end = data.find(END_OF_HEAD)
        if first_end != end:
            section = data[start - 2 : first_end + 2]
        left, bearer, trace, length = take_changing(section)
        left_digest = sha256(left).digest()
        head = self._heads.get(left_digest)
        was_known = head is not None
        if head is None:
            fields = split_fields(left[2:])
            if fields is None:
                return None
            head = judge_head(fields)
            if len(section) <= LONGEST:
                self._keep(left_digest, head)
        if not _is_sound(head, bearer, trace, length):
            return None
        seen = Seen(head, sha256(bearer).digest() if bearer is not None else None, length)
        if was_known and trace is None and first_end == end and len(section) <= LONGEST:
            self._sections.put(digest, seen)
        return seen, section, trace, first_end

    def _keep(self, digest: bytes, head: Head) -> None:
        """Keep a judgement when its section comes again: one of a kind would cost its memory for nothing."""
        lifted = head.fields.lifted
        if lifted[slots.API_KEY] is not None or lifted[slots.AUTHORIZATION] is not None:
            return  # a credential in there, in a spelling that `take_changing` leaves
        if digest in self._once:
            self._heads.put(digest, head)
            return
        if len(self._once) >= self._once_capacity:
            self._once.clear()
        self._once.add(digest)

    def grow_old(self) -> None:
        """Begin a new generation; the one before the last is forgotten."""
        self._sections.grow_old()
        self._heads.grow_old()
        self._once.clear()


def _is_sound(head: Head, bearer: bytes | None, trace: bytes | None, length: int | None) -> bool:
    """Tell whether what was taken out of a head stood in it once, and beside nothing that contradicts it."""
    lifted = head.fields.lifted
    if length is not None and (head.content_length is not None or head.chunked):
        return False
    if bearer is not None and lifted[slots.AUTHORIZATION] is not None:
        return False
    return trace is None or lifted[slots.TRACEPARENT] is None
