"""The gate's client of the box's socket. A connection carries one request: a JSON line each way, then raw bytes.

The gate does not trust the box: it limits the length of lines, and checks sizes and types.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage_sandbox.gate.errors import BOX_UNAVAILABLE, INVALID_ANSWER, RefusalError
from moorage_sandbox.gate.sockets import connect_without_links
from moorage_sandbox.protocol import MAX_RESULT_BYTES

CHUNK_BYTES = 512 * 1024
SHORT_TIMEOUT_SECONDS = 10


class BoxGoneError(Exception):
    """The connection ended before an answer. This alone does not tell whether the box ran the request."""


@dataclass(frozen=True)
class BoxConnection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class BoxClient:
    def __init__(self, socket: Path) -> None:
        self._socket = socket

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[BoxConnection]:
        """Connect to the box. Raises RefusalError `box_unavailable` when it does not listen; then it got no request."""
        try:
            reader, writer = await connect_without_links(self._socket, limit=MAX_RESULT_BYTES)
        except OSError as error:
            raise RefusalError("box_unavailable", BOX_UNAVAILABLE) from error
        try:
            yield BoxConnection(reader, writer)
        finally:
            writer.close()

    async def ask(self, request: dict[str, Any], *, timeout_seconds: float = SHORT_TIMEOUT_SECONDS) -> dict[str, Any]:
        """Send a request without raw bytes. The answer may be a refusal. Raises BoxGoneError if no answer comes."""
        async with self.connect() as connection:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await send(connection, request)
                    return await receive(connection)
            except TimeoutError as error:
                raise RefusalError("box_unavailable", "The sandbox does not answer") from error

    async def boot_id(self) -> str:
        try:
            answer = await self.ask({"op": "ping"})
        except BoxGoneError as error:
            raise RefusalError("box_unavailable", BOX_UNAVAILABLE) from error
        return str(answer.get("boot_id"))


async def send(connection: BoxConnection, request: dict[str, Any]) -> None:
    try:
        connection.writer.write(json.dumps(request, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        await connection.writer.drain()
    except OSError as error:
        raise BoxGoneError from error


async def receive(connection: BoxConnection) -> dict[str, Any]:
    try:
        line = await connection.reader.readline()
    except (OSError, ValueError) as error:  # ValueError: the line is longer than the limit
        raise BoxGoneError from error
    if not line.endswith(b"\n"):
        raise BoxGoneError
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise BoxGoneError from error
    if not isinstance(answer, dict):
        raise BoxGoneError
    return answer


def raise_refusal(answer: dict[str, Any]) -> None:
    """Raise RefusalError if the answer is a refusal. The box's code and message are cut to a limited length."""
    if answer.get("ok") is True:
        return
    error = answer.get("error")
    if not isinstance(error, dict):
        raise RefusalError("internal", INVALID_ANSWER)
    raise RefusalError(str(error.get("code", "internal"))[:50], str(error.get("message", ""))[:2000])
