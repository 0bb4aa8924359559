"""The tools of MCP servers as functions of the agent, named `mcp_<server>_<tool>`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Sequence
from itertools import zip_longest
from typing import Any, Literal

from mcp_types import AudioContent, CallToolResult, EmbeddedResource, ImageContent, ResourceLink, TextContent

from moorage_api.agent import prompts
from moorage_api.agent.ports import Attachments, Function, Switches, ToolCall, ToolResult
from moorage_api.tools.mcp.server import McpLostError, McpRefusedError, McpUnavailableError
from moorage_api.tools.mcp.service import McpService, OfferedServer
from moorage_api.tools.result_text import decode_base64, shorten_result, store_pictures

MAX_NAME_CHARS = 64
HASH_CHARS = 8
CALL_SECONDS = 120.0


class McpToolset:
    def __init__(
        self, service: McpService, servers: Sequence[OfferedServer], attachments: Attachments, switches: Switches
    ) -> None:
        self._service = service
        self._attachments = attachments
        self._switches = switches
        self._functions: dict[str, Function] = {}
        self._targets: dict[str, tuple[OfferedServer, str]] = {}
        self._by_server: dict[str, dict[str, Function]] = {server.name: {} for server in servers}
        for server in servers:
            for tool in server.tools:
                if tool["name"] not in self._by_server[server.name]:
                    self._add(server, tool)

    @property
    def name(self) -> Literal["mcp"]:
        return "mcp"

    def functions(self) -> Sequence[Function]:
        """One tool of each server in turn, so that every server keeps its first tools if not all fit."""
        on = [found.values() for name, found in self._by_server.items() if self._switches.is_on("mcp", name)]
        return [function for row in zip_longest(*on) for function in row if function is not None]

    def name_of(self, server: str, tool: str) -> str:
        return self._by_server[server][tool].name

    def _add(self, server: OfferedServer, tool: dict[str, Any]) -> None:
        name = function_name("mcp", server.name, tool["name"], taken=self._functions)
        self._functions[name] = self._by_server[server.name][tool["name"]] = Function(
            name=name,
            description=f"[{server.name}] {tool['description']}",
            parameters=tool["schema"],
            read_only=tool["read_only"],
        )
        self._targets[name] = (server, tool["name"])

    async def call(self, call: ToolCall) -> ToolResult:
        """Run a tool. A call whose result was lost is repeated only if the server marks the tool as read-only."""
        server, tool = self._targets[call.function]
        try:
            try:
                result = await self._service.call(server, tool, call.args, seconds=CALL_SECONDS)
            except McpLostError:
                if not self._functions[call.function].read_only:
                    raise
                result = await self._service.call(server, tool, call.args, seconds=CALL_SECONDS)
        except McpLostError as error:
            return ToolResult("unknown", f"{prompts.UNKNOWN_OUTCOME} ({error})", {"result": str(error)})
        except McpUnavailableError as error:
            return _failed_result(f"The MCP server {server.name} cannot be used: {error}")
        except McpRefusedError as error:
            return _failed_result(str(error))
        shown, remarks = await store_pictures(self._attachments, pictures_of(result), key=call.key)
        text = "\n".join([text_of(result), *remarks])
        text, content = await shorten_result(self._attachments, text, name="result")
        return ToolResult("failed" if result.is_error else "succeeded", text, content, shown)


def _failed_result(text: str) -> ToolResult:
    return ToolResult("failed", text, {"result": text})


def function_name(*parts: str, taken: Container[str] = ()) -> str:
    """Build a function name that every model server accepts.

    A name that had to be changed or shortened, or that is taken, ends with a hash of the original parts.
    Source: the wire document, "Function names": at most 64 characters, a hash suffix when longer.
    """
    plain = "_".join(parts)
    name = re.sub(r"[^A-Za-z0-9_-]", "_", plain)
    if name == plain and len(name) <= MAX_NAME_CHARS and name not in taken:
        return name
    original = "\0".join(parts)
    while True:
        digest = hashlib.sha256(original.encode()).hexdigest()[:HASH_CHARS]
        hashed = f"{name[: MAX_NAME_CHARS - HASH_CHARS - 1]}_{digest}"
        if hashed not in taken:
            return hashed
        original += "\0"  # the hashed name is taken, too: another tool has exactly this name


def pictures_of(result: CallToolResult) -> list[bytes]:
    """The pictures of the result. Data that is not base64 becomes empty."""
    return [decode_base64(block.data) for block in result.content if isinstance(block, ImageContent)]


def text_of(result: CallToolResult) -> str:
    """The result as text. For pictures and sounds it gives type and size, because not every model can read them."""
    lines: list[str] = []
    for block in result.content:
        match block:
            case TextContent():
                lines.append(block.text)
            case ImageContent() | AudioContent():
                lines.append(f"[{block.mime_type}, {len(block.data) * 3 // 4} bytes]")
            case ResourceLink():
                lines.append(f"[{block.name}: {block.uri}]")
            case EmbeddedResource():
                lines.append(getattr(block.resource, "text", f"[{block.resource.uri}]"))
    if not lines and result.structured_content is not None:
        lines.append(str(result.structured_content))
    return "\n".join(lines) or "(no output)"
