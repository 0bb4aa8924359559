"""Carries RFB over a WebSocket. Bytes pass unchanged in both directions, and a slow reader slows down the writer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from moorage_common.tasks import race
from moorage_sandbox.gate.errors import RefusalError
from moorage_sandbox.gate.sockets import connect_without_links

CHUNK_BYTES = 256 * 1024
FAILED = 1011
"""RFC 6455, section 7.4.1: the server met an unexpected condition."""


async def proxy(socket: WebSocket, rfb: Path) -> None:
    """Accept the WebSocket and connect it to the screen. Raises RefusalError if there is no screen."""
    try:
        reader, writer = await connect_without_links(rfb, limit=CHUNK_BYTES)
    except OSError as error:
        raise RefusalError("vnc_unavailable", "The screen of this sandbox is not running") from error
    try:
        offered = socket.scope.get("subprotocols", [])
        await socket.accept(subprotocol="binary" if "binary" in offered else None)
        async with race(to_screen(socket, writer), from_screen(reader, socket)):
            pass
        if socket.application_state is WebSocketState.CONNECTED:
            with suppress(RuntimeError, WebSocketDisconnect):
                await socket.close(FAILED, "The screen has ended")
    finally:
        writer.close()


async def to_screen(socket: WebSocket, writer: asyncio.StreamWriter) -> None:
    with suppress(WebSocketDisconnect, OSError):
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            writer.write(message.get("bytes") or (message.get("text") or "").encode())
            await writer.drain()


async def from_screen(reader: asyncio.StreamReader, socket: WebSocket) -> None:
    with suppress(WebSocketDisconnect, OSError):
        while data := await reader.read(CHUNK_BYTES):
            await socket.send_bytes(data)
