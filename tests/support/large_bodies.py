"""Bodies made and summed up as they pass, so that only the gateway could keep them; and its memory, watched."""

import asyncio
import hashlib
import os
from contextlib import suppress
from pathlib import Path

from tests.support.gateway import mint_token
from tests.support.upstream import Received
from tests.support.wire import Wire, bearer

WARM_UP = 64 * 2**20
GROWTH_AT_MOST = 16 * 2**20
PIECE = os.urandom(2**18)
DEADLINE_S = 1800.0

Sum = tuple[int, str]


def pieces(size: int) -> list[memoryview]:
    """A body of that size: the same random bytes again and again, at another offset to every power of two."""
    whole = memoryview(PIECE)[:-1]
    count, rest = divmod(size, len(whole))
    return [whole] * count + [whole[:rest]]


def sum_of(size: int) -> Sum:
    digest = hashlib.sha256()
    for piece in pieces(size):
        digest.update(piece)
    return size, digest.hexdigest()


async def send(writer: asyncio.StreamWriter, size: int) -> None:
    for piece in pieces(size):
        writer.write(piece)
        await writer.drain()


async def swallow(reader: asyncio.StreamReader, size: int) -> Sum:
    """Read exactly that much and keep nothing of it."""
    digest, left = hashlib.sha256(), size
    while left:
        data = await reader.read(min(left, 2**18))
        if not data:
            raise EOFError(f"{left} of {size} bytes did not come")
        digest.update(data)
        left -= len(data)
    return size, digest.hexdigest()


def memory(pid: int, name: str) -> int:
    """A line of the process's status, in bytes: `VmRSS` is what it holds, `VmHWM` the most it held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024


def forget_peak(pid: int) -> None:
    """Let `VmHWM` begin anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def download(wire: Wire, size: int) -> Sum:
    """Ask for a body of that size and read it."""
    await wire.send(head("GET", size))
    answer = await asyncio.wait_for(wire.reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert f"\r\ncontent-length: {size}\r\n".encode() in answer.lower()
    return await swallow(wire.reader, size)


async def upload(wire: Wire, size: int) -> str:
    """Send a body of that size; gives what the upstream said of it."""
    await wire.send(head("PUT", size))
    await send(wire.writer, size)
    reply = await wire.reply("PUT")
    assert reply.status == 200
    return reply.body.decode()


def head(method: str, size: int) -> bytes:
    lines = [f"{method} /{size} HTTP/1.1", "Host: app.example.test", bearer(mint_token())]
    if method == "PUT":
        lines.append(f"Content-Length: {size}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def large(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream that keeps nothing: answers with as many bytes as the target says, or sums up as many as came."""
    size = int(received.target[1:])
    if received.request_line.startswith(b"PUT"):
        _, said = await swallow(reader, size)
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(said)}\r\n\r\n{said}".encode())
        return
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
    with suppress(ConnectionError):  # the reader tells
        await send(writer, size)
