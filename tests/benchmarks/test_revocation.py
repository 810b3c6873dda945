"""How lags of revocation are told and judged, and how a websocket of the harness sees its end."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers import Echo
from benchmarks.revocation import CLOSED, Lag, Socket, opened, percentile, told, within
from tests.support.websockets import frame


def lag(accepted_s: float, closed_s: float, status: int = 401, code: int = CLOSED) -> Lag:
    return Lag(0.01, accepted_s, closed_s, Counter({200: 1, status: 5}), Counter({code: 3}), (1, 1, 1))


@given(st.lists(st.floats(0, 60), min_size=1), st.floats(0.01, 1))
def test_percentile_is_one_of_the_values_and_no_smaller_than_that_part_of_them(
    values: list[float], part: float
) -> None:
    found = percentile(values, part)

    assert found in values
    assert sum(value <= found for value in values) >= part * len(values) - 1e-9


@pytest.mark.parametrize(
    ("lags", "kept"),
    [
        ([lag(0.1, 0.2)] * 100, True),
        ([lag(0.1, 0.2)] * 99 + [lag(0.1, 30.0)], True),
        ([lag(0.1, 0.2)] * 98 + [lag(30.0, 0.2)] * 2, False),
        ([lag(0.1, 0.2)] * 99 + [lag(0.1, 0.2, status=503)], False),
        ([lag(0.1, 0.2)] * 99 + [lag(0.1, 0.2, status=0)], False),
        ([lag(0.1, 0.2)] * 99 + [lag(0.1, 0.2, code=-1)], False),
    ],
    ids=["soon", "one in a hundred late", "two late", "an outage", "an answer lost", "cut without a word"],
)
def test_bound_is_kept_by_99_of_100_rounds_in_which_nothing_else_went_wrong(lags: list[Lag], *, kept: bool) -> None:
    assert within(lags, 1.0) is kept


def test_distribution_is_told_in_milliseconds() -> None:
    text = told("Redis answers", [lag(number / 100, 0.0) for number in range(1, 101)])

    assert "last accepted       p50      500 p90      900 p99      990  max     1000" in text
    assert "statuses after the 204: {200: 100, 401: 500}; close codes: {4401: 300}" in text


class Closing(Echo):
    """Sends a close frame instead of an echo."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        assert self._transport is not None
        asyncio.get_running_loop().call_soon(self._transport.write, frame(8, CLOSED.to_bytes(2, "big") + b"revoked"))


class Dropping(Echo):
    """Hangs up after the handshake."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        assert self._transport is not None
        self._transport.close()


@pytest.mark.parametrize(("server", "code"), [(Closing, CLOSED), (Dropping, -1)])
async def test_websocket_tells_how_it_ended(server: type[Echo], code: int) -> None:
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    sockets: list[Socket] = await opened(listening.sockets[0].getsockname()[1], ["agt_token", "minted"], 4)
    async with asyncio.timeout(10):
        while not all(socket.code for socket in sockets):  # noqa: ASYNC110 - set by protocols
            await asyncio.sleep(0.01)
    for socket in sockets:
        socket.close()
    listening.close()
    await listening.wait_closed()

    assert [socket.code for socket in sockets] == [code] * 4
