"""An unmodified RFB client (asyncvnc) that reaches the screen through a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncvnc
import numpy
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from support.waiting import HANG_SECONDS


class SocketWriter:
    """The part of a StreamWriter that asyncvnc uses, over a WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._pending: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def write(self, data: bytes) -> None:
        task = asyncio.ensure_future(self._socket.send(bytes(data)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        await asyncio.gather(*self._tasks)


@asynccontextmanager
async def rfb_client(url: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[asyncvnc.Client]:
    """Connect to `ws://…/vnc?token=…` as noVNC does, or with headers as the api does."""
    async with connect(
        url, additional_headers=headers, subprotocols=[Subprotocol("binary")], max_size=None, proxy=None
    ) as socket:
        reader = asyncio.StreamReader(limit=2**24)

        async def pump() -> None:
            try:
                async for data in socket:
                    reader.feed_data(cast(bytes, data))
            finally:
                reader.feed_eof()

        pumping = asyncio.create_task(pump())
        try:
            client = await asyncvnc.Client.create(reader, cast(Any, SocketWriter(socket)), None, None)
            yield client
        finally:
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)


async def picture(client: asyncvnc.Client) -> numpy.ndarray[Any, numpy.dtype[numpy.uint8]]:
    """One whole picture: height x width x RGBA."""
    async with asyncio.timeout(HANG_SECONDS):
        return cast("numpy.ndarray[Any, numpy.dtype[numpy.uint8]]", await client.screenshot())


def share_of(image: numpy.ndarray[Any, numpy.dtype[numpy.uint8]], color: tuple[int, int, int]) -> float:
    """The share of the picture that has this colour, from 0 to 1."""

    return float((numpy.abs(image[..., :3].astype(int) - numpy.array(color)).max(axis=2) < 8).mean())
