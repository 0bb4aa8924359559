"""The configuration of an MCP server's connection, and the three errors of a call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

MIN_SECRET_CHARS = 4
MIN_KEY_CHARS = 8
"""Least length of a key inside a header value. A shorter word may be an ordinary word, such as `Bearer`."""


class McpUnavailableError(Exception):
    """There is no connection, so the call was not sent. The text is for people and contains no secret."""


class McpLostError(Exception):
    """A call was sent and its result was lost, so its outcome is unknown."""


class McpRefusedError(Exception):
    """The server answered with a protocol error, so the call was not carried out."""


@dataclass(frozen=True)
class McpRunnerAddress:
    """Address of the process that runs stdio servers, see `moorage_sandbox.mcp_commands`."""

    url: str
    token: str = field(default="", repr=False)


@dataclass(frozen=True)
class McpServer:
    """How to reach an MCP server. `connection` is the decrypted configuration; its values are secret."""

    name: str
    transport: str
    connection: dict[str, Any] = field(repr=False)

    def secrets(self) -> list[str]:
        """The secret texts, longest first: values of env, headers and the URL's query, and words of header values."""
        headers = list(self.connection.get("headers", {}).values())
        keys = [word for value in headers for word in value.split() if len(word) >= MIN_KEY_CHARS]
        query = [value for _, value in parse_qsl(urlsplit(self.connection.get("url", "")).query)]
        values = {*self.connection.get("env", {}).values(), *headers, *keys, *query}
        return sorted((value for value in values if len(value) >= MIN_SECRET_CHARS), key=len, reverse=True)
