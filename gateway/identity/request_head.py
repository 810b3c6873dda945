"""The head the upstream receives: what passes of the client's, the identity set, forwarding, trace, framing. Pure."""

from gateway.credentials.cookies import without_clerk, without_doubled
from gateway.credentials.find import Marks, authorization_is_ours, may_pass
from gateway.edge import slots
from gateway.edge.arrival import Arrived, trace_lines
from gateway.policy.routes import Auth, CompiledRoute

_OPTIONAL, _NONE = Auth.OPTIONAL, Auth.NONE  # read once: see edge/slots.py


def request_head(
    arrived: Arrived,
    rule: CompiledRoute,
    identity: bytes,
    assertion: bytes,
    length: int | None,
    marks: Marks,
    *,
    upgrades: bool,
) -> bytes:
    """Write a request head with its blank line.

    Args:
        arrived: The client's request.
        rule: Of the route it falls under.
        identity: The identity header set (`header_set.py`), CRLF after each line; the only identity in the head, with
        assertion: the same signed (`assertion.py`); empty where the block says that there is none.
        length: Bytes of the body, None when chunked or absent.
        marks: What tokens of ours are known by.
        upgrades: It asks for a websocket.
    """
    incoming, head, raw = arrived.incoming, arrived.head, arrived.target.raw
    lifted, own_lines = head.fields.lifted, b""
    if lifted[slots.API_KEY] is not None or lifted[slots.COOKIE] is not None or rule.authorization_may_pass:
        own_lines = _kept_credentials(arrived, rule, marks)
    if head.chunked:
        own_lines += b"Transfer-Encoding: chunked\r\n"
    elif length is not None:
        own_lines += b"Content-Length: %d\r\n" % length
    if upgrades:
        own_lines += b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    # One join: it copies each byte once, which formatting with `%` does not.
    return b"".join(
        (
            incoming.method.encode("ascii"),
            b" ",
            raw if rule.strip_prefix is None else _target_for(raw, rule.strip_prefix),
            b" HTTP/1.1\r\n",
            head.passing,
            own_lines,
            identity,
            assertion,
            b"X-Request-Id: ",
            incoming.request_id.encode("ascii"),
            b"\r\n",
            arrived.view.lines,
            trace_lines(head.fields, incoming.traceparent),
            b"\r\n",
        )
    )


def _kept_credentials(arrived: Arrived, rule: CompiledRoute, marks: Marks) -> bytes:
    """Lines for what is the application's; credentials of our kinds stay here unless the route forwards them."""
    fields, authorization = arrived.fields, arrived.authorization
    lines = []
    if authorization is not None and (
        rule.forward_credentials
        or (rule.auth is _OPTIONAL and not authorization_is_ours(authorization))
        or (rule.auth is _NONE and may_pass(authorization, marks))
    ):
        lines += [b"Authorization: ", authorization, b"\r\n"]
    api_key = fields.lifted[slots.API_KEY]
    if api_key is not None and (rule.forward_credentials or may_pass(api_key, marks)):
        lines += [b"X-API-Key: ", api_key, b"\r\n"]
    cookies = fields.all(slots.COOKIE)
    if cookies:
        cookie = without_doubled(cookies) if rule.forward_credentials else without_clerk(cookies)
        if cookie:
            lines += [b"Cookie: ", cookie, b"\r\n"]
    return b"".join(lines)


def _target_for(raw: bytes, strip_prefix: str) -> bytes:
    """The target as received, without the route's prefix; never empty, always starting with a slash."""
    prefix = strip_prefix.rstrip("/").encode("ascii")
    if not raw.startswith(prefix):
        return raw
    rest = raw[len(prefix) :]
    if rest.startswith(b"/"):
        return rest
    return b"/" + rest if not rest or rest.startswith(b"?") else raw
