"""What supervisor and worker say to each other arrives as it was said."""

import asyncio
import math
import socket
from pathlib import Path

import pytest

from gateway.workers.channel import (
    Channel,
    Message,
    Orders,
    packed,
    pass_listener,
    receive_listener,
    receive_orders,
)
from tests.support.gateway import MASTER_KEY, settings_for


async def test_messages_arrive_in_order_however_long_they_are() -> None:
    ours, theirs = socket.socketpair()
    speaking, hearing = await Channel.over(ours), await Channel.over(theirs)
    said: list[Message] = [{"id": 1}, {"long": "x" * 1_000_000}, {"age": math.inf}, {}]
    for message in said:
        speaking.send(message)
    closing = asyncio.create_task(speaking.close())

    assert [message async for message in hearing.messages()] == said
    await asyncio.gather(closing, hearing.close())


async def test_a_message_cut_short_is_the_end() -> None:
    ours, theirs = socket.socketpair()
    hearing = await Channel.over(theirs)
    ours.sendall(b"\x00\x00\x00\x09{}")
    ours.close()

    assert [message async for message in hearing.messages()] == []
    await hearing.close()


async def test_speaking_to_somebody_who_left_raises_nothing() -> None:
    ours, theirs = socket.socketpair()
    speaking = await Channel.over(ours)
    theirs.close()
    for _ in range(3):
        speaking.send({"do": "samples", "id": 1})
        await asyncio.sleep(0)
    await speaking.close()

    speaking.send({"do": "samples", "id": 2})


def test_orders_arrive_with_their_secrets_and_listeners_as_listeners() -> None:
    settings = settings_for("postgresql://a@127.0.0.1/b", "http://127.0.0.1:1", "http://127.0.0.1:2")
    (frames, other), (listeners, others) = socket.socketpair(), socket.socketpair()
    with frames, other, listeners, others, socket.create_server(("127.0.0.1", 0)) as server:
        frame = packed(Orders(1, settings, Path("gateway.yaml"), "postgresql://c@127.0.0.1/d"))
        frames.sendall(len(frame).to_bytes(4, "big") + frame)
        pass_listener(listeners, server)

        orders = receive_orders(other)
        with receive_listener(others) as received:
            assert received.getsockname() == server.getsockname()

    assert (orders.index, orders.settings) == (1, settings)
    assert orders.settings.secrets.master_key is not None
    assert orders.settings.secrets.master_key.get_secret_value() == MASTER_KEY


def test_a_supervisor_that_is_gone_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        with pytest.raises(EOFError):
            receive_orders(theirs)
        with pytest.raises(EOFError):
            receive_listener(theirs)
