"""One open connection to an MCP server. One task opens, uses and closes it; other tasks queue their calls for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import httpx2
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    REQUEST_TIMEOUT,
    CallToolResult,
    Implementation,
    Tool,
    jsonrpc_message_adapter,
)

from moorage_api.errors import OutboundRefusedError
from moorage_api.outbound import Outbound
from moorage_api.tools.mcp.server import McpLostError, McpRefusedError, McpRunnerAddress, McpServer, McpUnavailableError
from moorage_sandbox import mcp_commands
from moorage_sandbox.mcp_commands import McpCommand, McpCommandError

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 300.0
CLOSE_SECONDS = 2.0
MAX_PAGES = 20
MAX_MESSAGE_CHARS = 300
SESSION_IS_GONE = (INVALID_REQUEST, "Session terminated")
"""The SDK's error if the server no longer knows our session. The server has not run the call then."""
HTTP_ERROR = (INTERNAL_ERROR, "Server returned an error response")
"""The SDK's error for an HTTP status of 400 or more. It may come from a proxy while the server still runs the call."""

Streams = tuple[Any, Any]
"""The streams that the SDK reads from and writes to. Their classes are private to the SDK."""


@dataclass
class _Job:
    tool: str
    args: dict[str, Any]
    seconds: float
    result: asyncio.Future[CallToolResult]


class McpConnection:
    """Connects at once. Ends after IDLE_SECONDS without a call, when the connection is lost, or when it is closed."""

    def __init__(self, server: McpServer, *, outbound: Outbound, commands: McpRunnerAddress) -> None:
        self._server = server
        self._outbound = outbound
        self._commands = commands
        self._jobs: asyncio.Queue[_Job | None] = asyncio.Queue()
        self._running = 0
        self._is_lost = False
        self._tools: asyncio.Future[list[Tool]] = asyncio.get_running_loop().create_future()
        self._owner = asyncio.create_task(self._own(), name=f"mcp {server.name}")

    @property
    def is_usable(self) -> bool:
        return not self._is_lost and not self._owner.done()

    async def tools(self) -> list[Tool]:
        """The tools that the server listed when the connection was opened. Raises McpUnavailableError."""
        return await asyncio.shield(self._tools)

    async def call(self, tool: str, args: dict[str, Any], *, seconds: float) -> CallToolResult:
        """Raises McpUnavailableError, McpLostError and McpRefusedError."""
        await self.tools()
        if not self.is_usable:
            raise McpUnavailableError("The connection ended before the call was sent")
        job = _Job(tool, args, seconds, asyncio.get_running_loop().create_future())
        self._jobs.put_nowait(job)
        return await job.result

    async def close(self) -> None:
        self._jobs.put_nowait(None)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.wait({self._owner})
        self._owner.cancel()
        await asyncio.gather(self._owner, return_exceptions=True)

    async def _own(self) -> None:
        failure: Exception = McpUnavailableError("The connection has ended")
        try:
            async with asyncio.timeout(CONNECT_SECONDS) as limit:
                async with Client(
                    self._transport(), cache=None, client_info=Implementation(name="moorage", version="0.1.0")
                ) as client:
                    tools = await all_tools(client)
                    limit.reschedule(None)
                    self._tools.set_result(tools)
                    await self._serve(client)
        except Exception as error:  # noqa: BLE001 - the SDK's transports raise many exceptions, also in groups
            failure = McpUnavailableError(self._describe(error))
        finally:
            self._is_lost = True
            if not self._tools.done():
                self._tools.set_exception(failure)
                self._tools.exception()  # marks it as retrieved, or asyncio logs an error if no task awaits it
            while not self._jobs.empty():
                if (job := self._jobs.get_nowait()) is not None and not job.result.done():
                    job.result.set_exception(McpUnavailableError("The connection ended before the call was sent"))

    async def _serve(self, client: Client) -> None:
        calls: set[asyncio.Task[None]] = set()
        try:
            while not self._is_lost:
                try:
                    async with asyncio.timeout(IDLE_SECONDS):
                        job = await self._jobs.get()
                except TimeoutError:
                    if not calls:
                        return
                    continue
                if job is None:
                    return
                task = asyncio.create_task(self._run(client, job))
                job.result.add_done_callback(partial(_cancel_with_result, task))
                calls.add(task)
                task.add_done_callback(calls.discard)
        finally:
            for task in tuple(calls):
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    async def _run(self, client: Client, job: _Job) -> None:
        try:
            result = await client.call_tool(job.tool, job.args, read_timeout_seconds=job.seconds)
        except MCPError as error:
            if (error.code, error.message) == SESSION_IS_GONE:
                self._set_error(job, McpUnavailableError("The server has ended the session"))
                self._mark_lost()
            elif (error.code, error.message) == HTTP_ERROR or error.code in (CONNECTION_CLOSED, REQUEST_TIMEOUT):
                self._set_error(job, McpLostError(self._describe(error)))
                if error.code == CONNECTION_CLOSED:
                    self._mark_lost()
            else:
                self._set_error(job, McpRefusedError(self._describe(error)))
        except asyncio.CancelledError:
            self._set_error(job, McpLostError("The connection ended while the call ran"))
            raise
        except Exception as error:  # noqa: BLE001 - the SDK raises many exceptions for a malformed response
            self._set_error(job, McpLostError(self._describe(error)))
            self._mark_lost()
        else:
            if not job.result.done():
                job.result.set_result(result)

    @staticmethod
    def _set_error(job: _Job, error: Exception) -> None:
        if not job.result.done():
            job.result.set_exception(error)

    def _mark_lost(self) -> None:
        """Send nothing more, because the server has closed the connection or sent a malformed response."""
        self._is_lost = True
        self._jobs.put_nowait(None)

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Streams]:
        async with self._sdk_transport() as (incoming, outgoing):
            writer, reader = anyio.create_memory_object_stream[SessionMessage | Exception](16)
            async with anyio.create_task_group() as group, reader:
                group.start_soon(self._relay, incoming, writer)
                try:
                    yield reader, outgoing
                finally:
                    group.cancel_scope.cancel()

    async def _relay(self, incoming: Any, writer: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        """Forward messages to the SDK, and mark the connection as lost at the end of the stream."""
        async with writer:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                async for message in incoming:
                    await writer.send(message)
        self._mark_lost()

    def _sdk_transport(self) -> AbstractAsyncContextManager[Streams]:
        how = self._server.connection
        if self._server.transport == "stdio":
            command = McpCommand([how["command"], *how["args"]], how["env"])
            return command_streams(self._commands, command)
        if self._server.transport == "sse":
            return sse_client(how["url"], headers=how["headers"], httpx_client_factory=self._http_client)
        return self._streamable(how["url"], how["headers"])

    @asynccontextmanager
    async def _streamable(self, url: str, headers: dict[str, str]) -> AsyncIterator[Streams]:
        timeout = httpx2.Timeout(CONNECT_SECONDS, read=None)  # each call has its own limit
        async with self._outbound.client2("mcp", url, headers=headers, timeout=timeout) as client:
            async with streamable_http_client(url, http_client=client) as streams:
                yield streams

    def _http_client(
        self,
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        url = self._server.connection["url"]
        return self._outbound.client2(
            "mcp", url, headers=headers, auth=auth, timeout=httpx2.Timeout(CONNECT_SECONDS, read=None)
        )

    def _describe(self, error: BaseException) -> str:
        """The error as a text for people, without the secrets of the configuration, which a server may repeat."""
        text = _describe_exception(_innermost(error))
        for secret in self._server.secrets():
            text = text.replace(secret, "…")
        return " ".join(text.split())[
            :MAX_MESSAGE_CHARS
        ]  # cut after the replacement: half a secret would not be recognised


def _cancel_with_result(task: asyncio.Task[None], result: asyncio.Future[CallToolResult]) -> None:
    """Cancel the call when its caller was cancelled, such as by a user who stops the run."""
    if result.cancelled():
        task.cancel()


async def all_tools(client: Client) -> list[Tool]:
    """List the tools of the first MAX_PAGES pages."""
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return tools


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error


def _describe_exception(error: BaseException) -> str:
    match error:
        case OutboundRefusedError() | McpCommandError():
            return str(error)
        case httpx2.HTTPStatusError():
            return f"The server answered with HTTP status {error.response.status_code}"
        case httpx2.TimeoutException() | TimeoutError():
            return "The server did not answer in time"
        case httpx2.HTTPError():
            return "The server could not be reached; check its URL"
        case MCPError() if error.code == CONNECTION_CLOSED:
            return "The server closed the connection"
        case MCPError() if error.code == REQUEST_TIMEOUT:
            return "The server did not answer in time"
        case MCPError():
            return f"The server said: {error.message}"
        case _:
            return f"The connection failed ({type(error).__name__})"


@asynccontextmanager
async def command_streams(where: McpRunnerAddress, command: McpCommand) -> AsyncIterator[Streams]:
    """The streams of a stdio server in another process: one JSON-RPC message per line in both directions."""
    async with mcp_commands.open_command(where.url, command, token=where.token) as (reader, writer):
        to_client, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        outgoing, from_client = anyio.create_memory_object_stream[SessionMessage](0)
        async with anyio.create_task_group() as group, incoming, outgoing:
            group.start_soon(_read_lines, reader, to_client)
            group.start_soon(_write_lines, from_client, writer)
            try:
                yield incoming, outgoing
            finally:
                group.cancel_scope.cancel()


async def _read_lines(
    reader: asyncio.StreamReader, to_client: MemoryObjectSendStream[SessionMessage | Exception]
) -> None:
    async with to_client:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError, ValueError):
            while line := await reader.readline():  # raises ValueError if a line is too long
                if not line.strip():
                    continue
                try:
                    message = SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
                except ValueError:
                    logger.debug("Ignored a line of a stdio server that is not a message")  # many print a greeting
                    continue
                await to_client.send(message)


async def _write_lines(from_client: MemoryObjectReceiveStream[SessionMessage], writer: asyncio.StreamWriter) -> None:
    async with from_client:
        with suppress(OSError):
            async for message in from_client:
                writer.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await writer.drain()
