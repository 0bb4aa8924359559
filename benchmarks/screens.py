"""The VNC proxy of the api, with a client that offers compression.

Method: a peer in this process stands where the X server listens (a Unix socket behind a real gate, found by a provider
that always answers this gate), so that the proxy and not the drawing is measured. Throughput: it sends 256 MiB, the
client counts them. Latency: 500 times 16 bytes there and back, through api and gate, less the same on the socket
alone. The client offers permessage-deflate, as browsers do.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from websockets.asyncio.client import connect

from benchmarks.rows import Row

TOTAL = 256 * 2**20
CHUNK = bytes(64 * 1024)
PINGS = 500


class Screen:
    """Echoes messages of 16 bytes. A message of one byte makes it send TOTAL bytes."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def start(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._serve, str(self._socket))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if data == b"!":
                for _ in range(TOTAL // len(CHUNK)):
                    writer.write(CHUNK)
                    await writer.drain()
            else:
                writer.write(data)
                await writer.drain()
        writer.close()


async def measure(url: str, socket: Path) -> list[Row]:
    """`url` is the api's VNC WebSocket with a token; `socket` what the gate dials."""
    async with connect(url, max_size=None, proxy=None, compression="deflate") as client:
        through = []
        for _ in range(PINGS):
            began = time.perf_counter()
            await client.send(b"0123456789abcdef")
            await client.recv()
            through.append(time.perf_counter() - began)
        began = time.perf_counter()
        await client.send(b"!")
        size = 0
        while size < TOTAL:
            size += len(await client.recv())
        rate = TOTAL / (time.perf_counter() - began) / 1e6
    plain = await direct(socket)
    added = [max(0.0, (sample - plain) * 1000) for sample in through]
    return [
        Row("VNC proxy throughput, api and gate", "MB/s", [rate], "", "client offers compression, none is used"),
        Row("VNC proxy added latency, there and back", "ms", added, "", f"socket alone {plain * 1000:.3f} ms"),
    ]


async def direct(socket: Path) -> float:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    samples = []
    for _ in range(PINGS):
        began = time.perf_counter()
        writer.write(b"0123456789abcdef")
        await reader.readexactly(16)
        samples.append(time.perf_counter() - began)
    writer.close()
    return sorted(samples)[len(samples) // 2]


async def start_box(socket: Path) -> asyncio.Server:
    """A box that answers every request with its boot id, which is enough to bind a gate."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"ok": true, "boot_id": "bench"}\n')
        await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(serve, str(socket))


async def start_host(socket: Path, *, uid: str, url: str) -> asyncio.Server:
    """A sandbox host that returns the same sandbox for every session."""
    body = json.dumps({"uid": uid, "url": url, "phase": "ready", "reason": ""}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline() not in (b"\r\n", b""):
            continue
        writer.write(head + body)
        await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(serve, str(socket))
