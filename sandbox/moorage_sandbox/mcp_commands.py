"""Commands of others (stdio MCP servers) that run apart from the platform: how to ask for one, and to be asked.

One connection is one process. The first line asks for it, as JSON; the first line of the answer is `{}` or `{"error"}`.
From then on the connection is the process's stdin and stdout, and the process ends with it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from moorage_common.tasks import race

REQUEST_BYTES = 4 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
REQUEST_SECONDS = 10.0
START_SECONDS = 30.0


class McpCommandError(Exception):
    """A command does not run. The text is for people and holds nothing of its environment."""


@dataclass(frozen=True)
class McpCommand:
    """`env` may hold secrets: it is in no argument list and in no log."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


class Stdio(Protocol):
    """The two ends of a running command. `read` returns nothing at its end."""

    async def read(self) -> bytes: ...
    async def write(self, data: bytes) -> None: ...


Run = Callable[[McpCommand], Any]
"""An asynchronous context manager that yields Stdio, and ends the command when it is left. Raises McpCommandError."""


@asynccontextmanager
async def opened(
    url: str, command: McpCommand, *, token: str = ""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Run `command` where `url` says (`unix:/path`, `tcp://host:port`). Raises McpCommandError."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            reader, writer = await _connected(url)
    except (OSError, TimeoutError) as error:
        raise McpCommandError("What runs commands cannot be reached") from error
    try:
        request = {"token": token, "argv": list(command.argv), "env": dict(command.env)}
        writer.write(json.dumps(request).encode() + b"\n")
        try:
            async with asyncio.timeout(START_SECONDS):
                answer = json.loads(await reader.readline() or b'{"error": "It was not started"}')
        except (OSError, TimeoutError, ValueError) as error:
            raise McpCommandError("What runs commands does not answer") from error
        if "error" in answer:
            raise McpCommandError(str(answer["error"]))
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _connected(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if url.startswith("unix:"):
        return await asyncio.open_unix_connection(url.removeprefix("unix:"), limit=REQUEST_BYTES)
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port, limit=REQUEST_BYTES)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, token: str, run: Run) -> None:
    """Serve one connection, made with `limit=REQUEST_BYTES`, to its end."""
    try:
        command = await _asked(reader, token=token)
        async with run(command) as stdio:
            await _say(writer, {})
            await _bridge(reader, writer, stdio)
    except McpCommandError as error:
        await _say(writer, {"error": str(error)})
    except ConnectionError:
        return
    finally:
        writer.close()


async def _asked(reader: asyncio.StreamReader, *, token: str) -> McpCommand:
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            request = json.loads(await reader.readline())
        given, argv, env = str(request["token"]).encode(), request["argv"], request["env"]
    except (ValueError, TypeError, KeyError, TimeoutError) as error:
        raise McpCommandError("This is no request") from error
    if not hmac.compare_digest(given, token.encode()):
        raise McpCommandError("The token is wrong")
    texts = [*argv, *env, *env.values()] if isinstance(argv, list) and isinstance(env, dict) else [None]
    if not argv or not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise McpCommandError("This is no command")
    return McpCommand(argv, env)


async def _say(writer: asyncio.StreamWriter, message: Mapping[str, str]) -> None:
    try:
        writer.write(json.dumps(message).encode() + b"\n")
        await writer.drain()
    except ConnectionError:
        return


async def _bridge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stdio: Stdio) -> None:
    """Until either side has ended."""

    async def forward() -> None:
        while data := await reader.read(CHUNK_BYTES):
            await stdio.write(data)

    async def back() -> None:
        while data := await stdio.read():
            writer.write(data)
            await writer.drain()

    async with race(_until_broken(forward()), _until_broken(back())):
        pass


async def _until_broken(work: Awaitable[None]) -> None:
    try:
        await work
    except OSError:
        return
