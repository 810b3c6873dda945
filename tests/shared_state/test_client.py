"""The way to Redis: each kind of address, users, TLS; and what happens while it is away."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.exceptions import RedisError

from gateway.shared_state.client import CONNECTIONS, SharedRedis
from gateway.shared_state.errors import RedisUnavailable
from tests.support.certificates import Authority
from tests.support.fault_proxy import Fault, fault_proxy
from tests.support.redis_fleets import redis_cluster, running, until, watched_redis
from tests.support.redis_server import RedisServer

MANY = 2 * CONNECTIONS + 2
"""Questions at once: some wait for others."""


async def put_and_get(shared: SharedRedis, key: str = "key") -> Any:
    await shared.run(lambda client: client.set(key, b"value"))
    return await shared.run(lambda client: client.get(key))


async def answering(shared: SharedRedis) -> None:
    """Wait until it answers."""
    async with asyncio.timeout(20):
        while await outcome(shared) != "answered":  # noqa: ASYNC110 - nobody tells when a server is there again
            await asyncio.sleep(0.05)


async def outcome(shared: SharedRedis) -> str:
    try:
        await shared.run(lambda client: client.get("key"))
    except RedisUnavailable as error:
        return error.reason
    return "answered"


async def test_a_server_is_asked(redis_url: str) -> None:
    shared = SharedRedis(redis_url)

    assert await put_and_get(shared) == b"value"
    await shared.close()


async def test_a_server_behind_a_socket_file_is_asked(tmp_path: Path) -> None:
    with running(RedisServer(tmp_path, "--unixsocket", str(tmp_path / "r.sock"))):
        shared = SharedRedis(f"unix://{tmp_path / 'r.sock'}")

        assert await put_and_get(shared) == b"value"
        await shared.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that knows one user."""
    settings = tmp_path / "redis.conf"
    settings.write_text("user gw on >p@ss ~* &* +@all\nuser default off\n")
    with running(RedisServer(tmp_path, str(settings))) as server:
        yield server


async def test_the_user_of_an_acl_gets_in_and_nobody_else_does(guarded: RedisServer) -> None:
    users = {"gw:p%40ss@": "answered", "gw:wrong@": "refused", "": "refused"}
    for user, expected in users.items():
        shared = SharedRedis(f"redis://{user}127.0.0.1:{guarded.port}")
        assert await outcome(shared) == expected, user
        await shared.close()


async def test_tls_is_verified_against_the_named_authority(redis_url: str, tmp_path: Path) -> None:
    """The bundled redis-server has no TLS of its own, so it stands behind an end of TLS."""
    authority = Authority(tmp_path)
    certificate = authority.issue("127.0.0.1")
    plain = urlsplit(redis_url)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(plain.hostname, plain.port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
            target.close()

        await asyncio.gather(copy(reader, up_writer), copy(up_reader, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=certificate.server())
    url = f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    trusting, stranger = SharedRedis(url, authority.ca_file.read_text()), SharedRedis(url)

    assert await put_and_get(trusting) == b"value"
    assert await outcome(stranger) == "unreachable"
    await trusting.close()
    await stranger.close()
    server.close()


async def test_the_nodes_of_a_cluster_are_asked_for_what_each_has(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as nodes:
        shared = SharedRedis("redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes))
        keys = [f"key-{number}" for number in range(50)]
        values = [await put_and_get(shared, key) for key in keys]
        many = list(await asyncio.gather(*(put_and_get(shared, key) for key in keys)))
        counts = [int(node.ask(b"DBSIZE").strip(b":\r\n")) for node in nodes]
        channel: Any = shared.subscriber()
        await channel.subscribe("words")
        await shared.run(lambda client: client.execute_command("PUBLISH", "words", b"hello"))
        heard = [await channel.get_message(timeout=5) for _ in range(2)]
        await channel.aclose()
        await shared.close()

    assert values == many == [b"value"] * 50
    assert sum(counts) == 50
    assert all(counts)
    assert heard[1] is not None
    assert heard[1]["data"] == b"hello"


async def test_a_sentinel_that_is_away_hides_no_master(tmp_path: Path) -> None:
    with watched_redis(tmp_path) as watched:
        watched.sentinels[0].stop()
        shared = SharedRedis(watched.url)
        found = await put_and_get(shared)
        many = await asyncio.gather(*(put_and_get(shared, f"key-{number}") for number in range(MANY)))
        await shared.close()

    assert found == b"value"
    assert many == [b"value"] * MANY


async def test_the_master_that_sentinels_name_is_asked_also_after_another_became_it(tmp_path: Path) -> None:
    with watched_redis(tmp_path) as watched:
        shared = SharedRedis(watched.url)
        before = await put_and_get(shared)
        first = watched.master()
        watched.servers[0].stop()
        await asyncio.to_thread(until, lambda: watched.master() != first)
        await answering(shared)
        after = await put_and_get(shared)
        await shared.close()

    assert (before, after) == (b"value", b"value")


async def test_a_kept_connection_that_died_is_healed_unseen(redis_server: RedisServer, redis_url: str) -> None:
    shared = SharedRedis(redis_url)
    await put_and_get(shared)
    redis_server.stop()
    redis_server.start()

    assert await outcome(shared) == "answered"
    await shared.close()


async def test_while_nobody_is_there_one_question_in_a_while_tries_and_all_others_are_refused_at_once(
    redis_server: RedisServer, redis_url: str
) -> None:
    shared = SharedRedis(redis_url)
    redis_server.stop()
    outcomes = [await outcome(shared) for _ in range(20)]
    redis_server.start()
    await answering(shared)
    await shared.close()

    assert outcomes[0] == "unreachable"
    assert set(outcomes[1:]) <= {"breaker_open", "unreachable"}
    assert outcomes.count("unreachable") <= 3


async def test_a_server_that_hangs_costs_two_questions_their_deadline(
    redis_server: RedisServer, redis_url: str
) -> None:
    shared = SharedRedis(redis_url)
    await put_and_get(shared)
    redis_server.freeze()
    outcomes = [await outcome(shared) for _ in range(5)]
    redis_server.thaw()
    await answering(shared)
    value = await put_and_get(shared)
    await shared.close()

    assert outcomes[:2] == ["timeout", "timeout"]
    assert set(outcomes[2:]) == {"breaker_open"}
    assert value == b"value"


async def test_what_redis_refuses_of_one_command_is_no_outage(redis_url: str) -> None:
    shared = SharedRedis(redis_url)
    await shared.run(lambda client: client.set("key", b"no list"))
    for _ in range(3):
        with pytest.raises(RedisUnavailable, match="command_refused"):
            await shared.run(lambda client: client.rpush("key", b"one"))

    assert shared.breaker.trips == 0
    assert await outcome(shared) == "answered"
    await shared.close()


async def test_a_question_that_is_given_up_leaves_no_answer_to_the_next(redis_url: str) -> None:
    shared = SharedRedis(redis_url)
    await put_and_get(shared)
    for _ in range(20):
        asking = asyncio.create_task(shared.run(lambda client: client.get("key")))
        for _ in range(3):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert await shared.run(lambda client: client.get("nothing")) is None
    await shared.close()


async def test_more_questions_than_connections_wait_for_one_another(redis_url: str) -> None:
    shared = SharedRedis(redis_url)

    answers = await asyncio.gather(*(put_and_get(shared, f"key-{number}") for number in range(MANY)))
    await shared.close()

    assert answers == [b"value"] * MANY


async def test_nothing_is_asked_of_a_replica_that_may_not_write(tmp_path: Path) -> None:
    with running(RedisServer(tmp_path / "a")) as master:
        options = ("--replicaof", "127.0.0.1", str(master.port))
        with running(RedisServer(tmp_path / "b", *options)) as replica:
            shared = SharedRedis(f"redis://127.0.0.1:{replica.port}")
            with pytest.raises(RedisUnavailable, match="refused"):
                await shared.run(lambda client: client.set("key", b"value"))
            await shared.close()


def test_no_password_is_told_by_what_is_printed() -> None:
    shared = SharedRedis("redis://gw:hunter22@127.0.0.1:1")

    assert "hunter22" not in repr(shared)


async def test_a_subscription_ends_with_its_connection_and_does_not_connect_on_and_on(redis_url: str) -> None:
    """redis-py's own would connect, subscribe, fail and connect again, each time from inside the last."""
    async with fault_proxy(redis_url) as between:
        shared = SharedRedis(between.through(redis_url))
        for _ in range(20):
            await between.set(Fault.NONE)
            subscription: Any = shared.subscriber()
            await subscription.subscribe("words")
            assert (await subscription.get_message(timeout=5))["type"] == "subscribe"
            connections = between.connections
            await between.set(Fault.RESET)
            with pytest.raises((RedisError, OSError)):
                await subscription.get_message(timeout=5)
            assert between.connections == connections
            await subscription.aclose()
        await shared.close()
