"""The gate's side of the box's socket: one connection a request, one JSON line each way, raw bytes behind it.

Nothing the box says is believed beyond its own session: lines are bounded, sizes checked, types validated.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage_sandbox.gate.errors import RefusedError
from moorage_sandbox.gate.sockets import connect_itself
from moorage_sandbox.protocol import MAX_RESULT_BYTES

CHUNK_BYTES = 512 * 1024
SHORT_TIMEOUT_SECONDS = 10


class BoxGoneError(Exception):
    """The connection ended before an answer: whether the box did anything is not known from this alone."""


@dataclass(frozen=True)
class BoxConnection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class BoxClient:
    def __init__(self, socket: Path) -> None:
        self._socket = socket

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[BoxConnection]:
        """Raises RefusedError `box_unavailable` when nobody listens: then nothing was asked either."""
        try:
            reader, writer = await connect_itself(self._socket, limit=MAX_RESULT_BYTES)
        except OSError as error:
            raise RefusedError("box_unavailable", "The sandbox is starting or was restarted, try again") from error
        try:
            yield BoxConnection(reader, writer)
        finally:
            writer.close()

    async def ask(self, request: dict[str, Any], *, timeout_seconds: float = SHORT_TIMEOUT_SECONDS) -> dict[str, Any]:
        """One question without bytes behind it. The answer may be a refusal; raises BoxGoneError without one."""
        async with self.connect() as connection:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await send(connection, request)
                    return await receive(connection)
            except TimeoutError as error:
                raise RefusedError("box_unavailable", "The sandbox does not answer") from error

    async def boot_id(self) -> str:
        try:
            answer = await self.ask({"op": "ping"})
        except BoxGoneError as error:
            raise RefusedError("box_unavailable", "The sandbox is starting or was restarted, try again") from error
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
    except (OSError, ValueError) as error:  # ValueError: a line beyond the limit
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
    """Turn an answer that says no into RefusedError; the box's words are cut, its code is one word."""
    if answer.get("ok") is True:
        return
    error = answer.get("error")
    if not isinstance(error, dict):
        raise RefusedError("internal", "The sandbox answered something unreadable")
    raise RefusedError(str(error.get("code", "internal"))[:50], str(error.get("message", ""))[:2000])
