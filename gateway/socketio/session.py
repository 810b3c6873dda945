"""One Engine.IO connection: which namespaces its client may use, on whatever transport, and how long.

A websocket is one by itself. A polling session is one too, under its `sid`, and goes on when a websocket takes it over.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.actors.actor import Actor
from gateway.errors import EngineRequestRefused, GatewayError
from gateway.live.registry import Live, Registry, parent_of
from gateway.problems import code_of, row_of
from gateway.socketio.packets import Kind, Packet, PacketRefused, connect_error

MAX_NAMESPACES = 64
MAX_REFUSED = 10
"""CONNECT packets with a bad credential on one connection: somebody is guessing, or did not notice."""


class Admission:
    """A namespace somebody may use: what the registry of live connections ends.

    Attributes:
        actor: Who; None for somebody who showed nothing.
        expires_at: Loop time; None: never. The registry sets it.
        gone: Tells the registry that this is over.
    """

    __slots__ = ("_session", "actor", "expires_at", "gone")

    def __init__(self, session: "Session", actor: Actor | None) -> None:
        self._session = session
        self.actor = actor
        self.expires_at: float | None = None
        self.gone: Callable[[], None] | None = None

    def close(self, code: int, cause: str) -> None:
        """End the whole connection: a client whose namespace alone ended would go on as somebody who may not call."""
        self._session.end(code, cause)

    def leave(self) -> None:
        """It is over."""
        if self.gone is not None:
            self.gone()


class Session:
    """What one client may send.

    Attributes:
        name: Of the connection, as the registry knows it.
        route: Label of metrics.
        upstream: Where it leads.
        path: Of its requests' target.
        admitted: By namespace.
        answers: Packets of ours for the client, CONNECT_ERROR each.
        probing: Its websocket has not taken over: messages go by polling.
        talks: The upstream has something to say: a namespace was admitted, or the client takes its leave.
        ended: Why it is over, None while it lives.
        listeners: Called when something changed: waiting requests, and the websocket.
        closes: Closes its websocket; None: there is none.
        used: Tokens (`jti`) it used up: a second namespace may show the same.
    """

    __slots__ = (
        "_attachments",
        "_checking",
        "_connect_within_s",
        "_now",
        "_quiet_since",
        "_refused",
        "_requests",
        "admitted",
        "answers",
        "closes",
        "ended",
        "listeners",
        "name",
        "path",
        "probing",
        "route",
        "talks",
        "upstream",
        "used",
    )

    def __init__(
        self,
        name: str,
        route: str,
        upstream: str,
        path: str,
        now: Callable[[], float],
        *,
        connect_within_s: float,
        probing: bool = False,
    ) -> None:
        """Begin, with no namespace.

        Args:
            name: Of the connection.
            route: Its row's name.
            upstream: Its name.
            path: Of the target.
            now: Loop time.
            connect_within_s: The longest a client may stay without a namespace.
            probing: It begins with polling.
        """
        self.name, self.route, self.upstream, self.path = name, route, upstream, path
        self.admitted: dict[bytes, Admission] = {}
        self.answers: list[bytes] = []
        self.probing = probing
        self.talks = False
        self.ended: str | None = None
        self.listeners: set[Callable[[], None]] = set()
        self.closes: Callable[[int, str], None] | None = None
        self.used: set[str] = set()
        self._attachments = self._refused = self._checking = 0
        self._connect_within_s = connect_within_s
        self._now = now
        self._quiet_since = now()
        self._requests: set[str] = set()

    def weigh(self, packet: Packet) -> None:
        """Take note of a packet that is not binary and may go up now; a CONNECT is for somebody else to judge.

        Raises:
            PacketRefused: It may not.
        """
        if packet.kind is Kind.CLOSE:
            self.talks = True
            self.tell()
        if packet.kind in (Kind.ENGINE, Kind.CLOSE, Kind.UPGRADE):
            return
        if self._attachments:  # a server would take it for one
            raise PacketRefused("attachment_expected")
        if packet.kind is Kind.CONNECT:
            return
        if packet.namespace not in self.admitted:
            raise PacketRefused("namespace_not_connected")
        self._attachments = packet.attachments
        if packet.kind is Kind.DISCONNECT:
            self.admitted.pop(packet.namespace).leave()
            self._quiet_since = self._now()

    def weigh_binary(self) -> None:
        """Take note of a binary message.

        Raises:
            PacketRefused: None is due: a server might take it for a packet.
        """
        if not self._attachments:
            raise PacketRefused("attachment_unexpected")
        self._attachments -= 1

    @property
    def expires_at(self) -> float | None:
        """Loop time at which the first of its namespaces does; None: never."""
        return min((one.expires_at for one in self.admitted.values() if one.expires_at is not None), default=None)

    @property
    def silent(self) -> bool:
        """It has had no namespace for too long."""
        return not self.admitted and not self._checking and self._now() - self._quiet_since > self._connect_within_s

    def checking(self) -> None:
        """A CONNECT is being judged: whoever waits for our answer is not silent.

        Raises:
            PacketRefused: There were too many.
        """
        if self._refused >= MAX_REFUSED or len(self.admitted) >= MAX_NAMESPACES:
            raise PacketRefused("connects_too_many")
        self._checking += 1

    def checked(self) -> None:
        """It is judged, or nobody will."""
        self._checking -= 1
        self._quiet_since = self._now()

    def admit(self, namespace: bytes, live: Registry, actor: Actor | None, since: int | None = None) -> None:
        """Open a namespace, anew if it is open to the same caller.

        Args:
            namespace: As the packet names it.
            live: Ends it when its caller may not call any more.
            actor: None for somebody who showed nothing.
            since: `Registry.ends` before their credential was checked.

        Raises:
            PacketRefused: It is open to somebody else. The server for Python goes on with whoever was first, so the
                connection would outlive their right to it.
        """
        before = self.admitted.get(namespace)
        if before is not None:
            if not _same_caller(before.actor, actor):
                raise PacketRefused("namespace_taken")
            before.leave()
        self.admitted[namespace] = admission = Admission(self, actor)
        self.talks = True
        if actor is not None:
            entry: Live = live.enter(actor, self.name, since)
            entry.attach(admission)
        self.tell()

    def refuse(self, namespace: bytes, error: GatewayError, request_id: str) -> None:
        """Answer a CONNECT that gets nowhere."""
        self._refused += 1
        row = row_of(error)
        data = {"status": row.status.value, "detail": row.detail, "requestId": request_id}
        self.answers.append(connect_error(namespace, code_of(error), data))
        self.tell()

    def take_answers(self) -> list[bytes]:
        """Give the answers for the client, once."""
        taken, self.answers = self.answers, []
        return taken

    def end(self, code: int, cause: str) -> None:
        """End it, its websocket with a close frame.

        Args:
            code: 1000 to 4999.
            cause: Label of the metric.
        """
        if self.ended is None:
            self.leave(cause)
            if self.closes is not None:
                self.closes(code, cause)

    def leave(self, cause: str) -> None:
        """It is over, its transport too."""
        if self.ended is None:
            self.ended = cause
            for admission in tuple(self.admitted.values()):
                admission.leave()
            self.admitted.clear()
            self.tell()

    @contextmanager
    def request(self, method: str) -> Iterator[None]:
        """Let one polling request of a kind be under way.

        Raises:
            EngineRequestRefused: There is one already, as no client sends it: packets would lose their order.
        """
        if method in self._requests:
            raise EngineRequestRefused("request_doubled")
        self._requests.add(method)
        try:
            yield
        finally:
            self._requests.discard(method)

    @property
    def requests(self) -> bool:
        """Polling requests are under way."""
        return bool(self._requests)

    def tell(self) -> None:
        """Something changed."""
        for listener in tuple(self.listeners):
            listener()


def _same_caller(one: Actor | None, two: Actor | None) -> bool:
    if one is None or two is None:
        return one is two
    return parent_of(one) == parent_of(two)
