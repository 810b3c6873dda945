"""Sound requests and an upstream's answers to them, framed in every way HTTP allows: Hypothesis strategies."""

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.support.raw_requests import Draw, Shown, one_of, rarely, shown

PATTERN = bytes(index % 251 for index in range(200_000))
SIZES = rarely(one_of([0, 1, 2, 10, 1000, 5000]), one_of([16_384, 65_536, 70_000, 131_073, 200_000]), 5)
PIECES = st.lists(st.tuples(st.integers(1, 2000), st.integers(0, 2)), max_size=5)
METHODS = ["GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
REQUEST_FIELDS = [
    b"Accept: */*",
    b"aCCept-Encoding:gzip",
    b"X-App: 1",
    b"X-App: 2",
    b"X-Empty:",
    b"X-Text:   caf\xe9 \xff  ",
    b"X-Large: " + b"v" * 5000,
    b"Cookie: theme=dark; b=2",
    b"Authorization: Basic eDp5",
    b"Connection: X-App, keep-alive",
    b"Keep-Alive: timeout=5",
    b"TE: trailers",
    b"X-Actor-Id: usr_admin",
    b"X_Actor.Role: ADMIN",
    b"x-organization-id: org_x",
    b"Remote-User: admin",
    b"X-Forwarded-For: 1.2.3.4",
    b"X-Real-IP: 1.2.3.4",
    b"Forwarded: for=1.2.3.4",
    b"X-Forwarded-Prefix: /admin",
    b"X_Forwarded_Proto: https",
    b"X-Original-URL: /admin",
    b"X-Rewrite-URL: /admin",
    b"X-Envoy-Original-Path: /admin",
    b"X-Clerk-User: u",
    b"X-Auth-Request-User: u",
    b"Remote.Groups: admin",
    b"X-Goog-IAP-JWT-Assertion: x",
    b"X-Goog-Authenticated-User-Email: x",
    b"Cf-Access-Jwt-Assertion: x",
    b"X-Pomerium-Claim: x",
    b"X-Authentik-Uid: x",
    b"X-Consumer-Id: x",
    b"X-Subscription-Plan: pro",
    b"X-Feature-Flags: all",
    b"HTTP2-Settings: AAMAAABkAAQAAP__",
    b"X-Actors: of the application",
    b"X-Request-Id: mine",
    b"Proxy-Authorization: Basic eDp5",
    b"Content-Type: text/plain",
    b"Content-Encoding: gzip",
    b"Range: bytes=0-1",
    b'If-None-Match: "a"',
]
STATUSES = [200] * 6 + [201, 206, 299, 301, 302, 400, 401, 403, 404, 413, 429, 500, 503, 599]
BODILESS = [204, 304]
REASONS = [b"OK", b"OK", b"", b"Not Here", b"caf\xe9 \t!"]
ANSWER_FIELDS = [
    b"Content-Type: text/plain; charset=utf-8",
    b"content-encoding: gzip",
    b"Set-Cookie: a=1; Path=/",
    b"Set-Cookie: b=2, c",
    b"Location: //evil.test/x",
    b'ETag: "a"',
    b"Server: up/1",
    b"Date: Sun, 06 Nov 1994 08:49:37 GMT",
    b"Cache-Control: no-store",
    b"Vary: Origin",
    b"X-Empty:",
    b"X-Text:   caf\xe9 \xff  ",
    b"X-Large: " + b"v" * 20_000,
    b"Connection: X-Hop",
    b"Connection: keep-alive, Set-Cookie",
    b"X-Hop: 1",
    b"Keep-Alive: timeout=5",
    b"Trailer: X-Sum",
    b"Proxy-Authenticate: Basic",
    b"Upgrade: h2c",
    b"X-Actor-Id: usr_forged",
    b"X_Organization_Id: org_forged",
    b"X-Request-Id: theirs",
    b"X-Forwarded-For: 10.0.0.1",
    b"Access-Control-Allow-Origin: *",
    b'WWW-Authenticate: Basic realm="x"',
    b"Retry-After: 5",
]
INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nX-Hop: 1\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n",
]
EXTENSIONS = [b"", b"", b";a", b";a=b", b';a="b c"']
TRAILERS = [b"", b"", b"X-Sum: 1\r\n", b"X-Actor-Id: usr_admin\r\nX-B: 2\r\n"]


@dataclass(frozen=True, repr=False)
class Script(Shown):
    """Bytes to write.

    Attributes:
        raw: All of them.
        pieces: Sizes of the first pieces, each with a pause behind it: 0 none, 1 a turn of the loop, 2 a millisecond.
        close: End the connection behind them.
    """

    raw: bytes
    pieces: list[tuple[int, int]]
    close: bool = False

    def __repr__(self) -> str:
        return f"Script({shown(self.raw)}, {self.pieces}, close={self.close})"


@dataclass(frozen=True)
class Asked:
    """One request and what is answered; `method` is repeated for parsers that must know it."""

    method: str
    request: Script
    answer: Script


@st.composite
def chunked(draw: Draw, body: bytes) -> bytes:
    """A body in sound chunks."""
    out, start = [], 0
    for size in [*draw(st.lists(st.integers(1, 70_000), max_size=4)), len(body)]:
        part = body[start : start + size]
        start += size
        if part:
            line = draw(one_of([b"%x", b"%X", b"000%x"])) % len(part) + draw(one_of(EXTENSIONS))
            out.append(line + b"\r\n" + part + b"\r\n")
    return b"".join(out) + b"0\r\n" + draw(one_of(TRAILERS)) + b"\r\n"


@st.composite
def requests(draw: Draw) -> tuple[str, Script]:
    """A sound request."""
    method = draw(one_of(METHODS))
    lines = draw(st.lists(one_of(REQUEST_FIELDS), max_size=6, unique=True))
    version, body = b"HTTP/1.1", b""
    if method in ("POST", "PUT", "PATCH"):
        body = PATTERN[: draw(SIZES)]
        if draw(st.booleans()):
            body = draw(chunked(body))
            lines.append(b"Transfer-Encoding: chunked")
        else:
            lines.append(b"Content-Length: " + draw(one_of([b"%d", b"%d", b"00%d"])) % len(body))
    elif draw(rarely(st.just(False), st.just(True), 4)):
        version = b"HTTP/1.0"
    first = method.encode() + draw(one_of([b" /public/x ", b" /public/a/b?c=%zz&d ", b" /public/%c3%a9 "])) + version
    head = b"\r\n".join([first, b"Host: app.example.test", *draw(st.permutations(lines))]) + b"\r\n\r\n"
    return method, Script(head + body, draw(PIECES))


@st.composite
def answers(draw: Draw, method: str) -> Script:
    """A sound answer, perhaps cut short."""
    status = draw(rarely(one_of(STATUSES), one_of(BODILESS), 8))
    lines = draw(st.lists(one_of(ANSWER_FIELDS), max_size=7, unique=True))
    kinds = ["length", "length", "chunked", "until_close"]
    kind = draw(one_of(["none", "length"] if status == 304 else kinds)) if status != 204 else "none"
    body = PATTERN[: draw(SIZES)]
    close = kind == "until_close" or draw(rarely(st.just(False), st.just(True), 6))
    if kind == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif kind == "chunked":
        body = draw(chunked(body))
        lines.append(draw(one_of([b"Transfer-Encoding: chunked", b"transfer-encoding: Chunked"])))
    if close and draw(st.booleans()):
        lines.append(b"Connection: close")
    if kind == "none" or method == "HEAD" or status == 304:
        body = b""
    version = b"HTTP/1.0" if kind == "until_close" and draw(st.booleans()) else b"HTTP/1.1"
    interim = b"".join(draw(st.lists(one_of(INTERIM), max_size=2))) if version == b"HTTP/1.1" else b""
    first = b"%b %d %b" % (version, status, draw(one_of(REASONS)))
    raw = interim + b"\r\n".join([first, *draw(st.permutations(lines))]) + b"\r\n\r\n" + body
    if draw(rarely(st.just(False), st.just(True), 4)):
        in_the_body = st.integers(len(raw) - len(body), len(raw))
        cut = draw(st.one_of(in_the_body, in_the_body, st.integers(0, len(raw))))
        return Script(raw[:cut], draw(PIECES), close=True)
    return Script(raw, draw(PIECES), close)


@st.composite
def asked(draw: Draw) -> Asked:
    """A request and its answer."""
    method, request = draw(requests())
    return Asked(method, request, draw(answers(method)))
