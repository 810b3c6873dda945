"""Several real redis-servers as one: a cluster of three, and a master with a replica that sentinels watch."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.redis_server import RedisServer

_SLOTS = 16_384
_PATIENCE_S = 30.0
SERVICE = "main"


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError("waited in vain")
        time.sleep(0.02)


def says(server: RedisServer, question: bytes, word: bytes) -> None:
    """Wait until a server's answer holds a word."""
    until(lambda: word in server.ask(question))


@contextmanager
def running(server: RedisServer) -> Iterator[RedisServer]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def redis_cluster(folder: Path) -> Iterator[list[RedisServer]]:
    """Three nodes that have all slots between them."""
    with ExitStack() as stack:
        nodes = [_node(stack, folder / str(name)) for name in range(3)]
        for number, node in enumerate(nodes):
            first, last = number * _SLOTS // 3, (number + 1) * _SLOTS // 3
            for start in range(first, last, 2000):
                slots = " ".join(map(str, range(start, min(last, start + 2000))))
                assert node.ask(f"CLUSTER ADDSLOTS {slots}".encode()).startswith(b"+OK")
            node.ask(f"CLUSTER MEET 127.0.0.1 {nodes[0].port}".encode())
        for node in nodes:
            says(node, b"CLUSTER INFO", b"cluster_state:ok")
            says(node, b"CLUSTER INFO", b"cluster_known_nodes:3")
        yield nodes


def _node(stack: ExitStack, folder: Path) -> RedisServer:
    """Start one; it listens 10000 ports above its own as well, and somebody may be there."""
    for attempt in range(5):
        try:
            return stack.enter_context(
                running(
                    RedisServer(folder / str(attempt), "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
                )
            )
        except RuntimeError:
            continue
    raise RuntimeError("no node of a cluster found two free ports")


class Watched:
    """A master and its replica, with two sentinels that agree."""

    def __init__(self, servers: list[RedisServer], sentinels: list[RedisServer]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    def master(self) -> int:
        """Port of the master, as the first sentinel says."""
        answer = self.sentinels[0].ask(f"SENTINEL get-master-addr-by-name {SERVICE}".encode())
        return int(answer.split(b"\r\n")[4])


@contextmanager
def watched_redis(folder: Path) -> Iterator[Watched]:
    """A master with a replica, and two sentinels."""
    with ExitStack() as stack:
        master = stack.enter_context(running(RedisServer(folder / "master")))
        replica = stack.enter_context(
            running(RedisServer(folder / "replica", "--replicaof", "127.0.0.1", str(master.port)))
        )
        until(lambda: b"master_link_status:up" in replica.ask(b"INFO replication"))
        sentinels = []
        for name in ("one", "other"):
            (folder / name).mkdir()
            settings = folder / name / "sentinel.conf"
            settings.write_text(
                f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} 500\n"
                f"sentinel failover-timeout {SERVICE} 2000\n"
            )
            sentinels.append(stack.enter_context(running(RedisServer(folder / name, str(settings), "--sentinel"))))
        watched = Watched([master, replica], sentinels)
        for sentinel in sentinels:
            says(sentinel, f"SENTINEL master {SERVICE}".encode(), b"num-other-sentinels\r\n$1\r\n1")
            says(sentinel, f"SENTINEL master {SERVICE}".encode(), b"num-slaves\r\n$1\r\n1")
        yield watched
