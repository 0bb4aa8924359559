"""The protocol for running stdio MCP servers, which run outside of the platform's processes. Both sides are here.

Each connection starts one process. The client sends one JSON line with the command; the server answers with the line
`{}`, or `{"error": …}`. After that the connection is the stdin and stdout of the process, and both end together.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from moorage_common.logging_setup import log_context
from moorage_common.tasks import race

REQUEST_BYTES = 4 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
REQUEST_SECONDS = 10.0
START_SECONDS = 30.0


class McpCommandError(Exception):
    """A command cannot be run. The text is for people and contains nothing of the command's environment."""


@dataclass(frozen=True)
class McpCommand:
    """`env` may hold secrets, so it never appears in an argument list or a log."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


class Stdio(Protocol):
    """The stdin and stdout of a running command. `read` returns b"" at the end of its output."""

    async def read(self) -> bytes: ...
    async def write(self, data: bytes) -> None: ...


Run = Callable[[McpCommand], Any]
"""Returns an async context manager that starts a command, yields Stdio, and ends it. May raise McpCommandError."""


@asynccontextmanager
async def open_command(
    url: str, command: McpCommand, *, token: str = ""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Run `command` where `url` says (`unix:/path`, `tcp://host:port`). Raises McpCommandError."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            reader, writer = await _connect(url)
    except (OSError, TimeoutError) as error:
        raise McpCommandError("The service that runs commands cannot be reached") from error
    try:
        request = {"token": token, "argv": list(command.argv), "env": dict(command.env)}
        writer.write(json.dumps(request).encode() + b"\n")
        try:
            async with asyncio.timeout(START_SECONDS):
                answer = json.loads(await reader.readline() or b'{"error": "The command was not started"}')
        except (OSError, TimeoutError, ValueError) as error:
            raise McpCommandError("The service that runs commands does not answer") from error
        if "error" in answer:
            raise McpCommandError(str(answer["error"]))
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if url.startswith("unix:"):
        return await asyncio.open_unix_connection(url.removeprefix("unix:"), limit=REQUEST_BYTES)
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port, limit=REQUEST_BYTES)


async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, token: str, run: Run) -> None:
    """Serve one connection until it ends. Its reader must have been made with `limit=REQUEST_BYTES`.

    Lines that are logged meanwhile have a `request_id`, so that those of one command can be found.
    """
    with log_context(request_id=secrets.token_hex(8)):
        await _serve_connection(reader, writer, token=token, run=run)


async def _serve_connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, token: str, run: Run
) -> None:
    try:
        command = await _read_request(reader, token=token)
        async with run(command) as stdio:
            await _send_line(writer, {})
            await _bridge(reader, writer, stdio)
    except McpCommandError as error:
        await _send_line(writer, {"error": str(error)})
    except ConnectionError:
        return
    finally:
        writer.close()


async def _read_request(reader: asyncio.StreamReader, *, token: str) -> McpCommand:
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            request = json.loads(await reader.readline())
        given, argv, env = str(request["token"]).encode(), request["argv"], request["env"]
    except (ValueError, TypeError, KeyError, TimeoutError) as error:
        raise McpCommandError("The first line is not a valid request") from error
    if not hmac.compare_digest(given, token.encode()):
        raise McpCommandError("The token is wrong")
    texts = [*argv, *env, *env.values()] if isinstance(argv, list) and isinstance(env, dict) else [None]
    if not argv or not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise McpCommandError("The request has no valid command: `argv` and `env` must hold texts without NUL")
    return McpCommand(argv, env)


async def _send_line(writer: asyncio.StreamWriter, message: Mapping[str, str]) -> None:
    try:
        writer.write(json.dumps(message).encode() + b"\n")
        await writer.drain()
    except ConnectionError:
        return


async def _bridge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stdio: Stdio) -> None:
    """Copy in both directions until either side has ended."""

    async def forward() -> None:
        while data := await reader.read(CHUNK_BYTES):
            await stdio.write(data)

    async def back() -> None:
        while data := await stdio.read():
            writer.write(data)
            await writer.drain()

    async with race(_run_until_broken(forward()), _run_until_broken(back())):
        pass


async def _run_until_broken(work: Awaitable[None]) -> None:
    try:
        await work
    except OSError:
        return
