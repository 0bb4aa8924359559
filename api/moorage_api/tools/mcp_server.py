"""How an MCP server is reached, and the three ways in which talking to it fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

MIN_SECRET_CHARS = 4
MIN_KEY_CHARS = 8
"""Of one word among others: a shorter one may be just a word."""


class McpUnavailableError(Exception):
    """There is no connection, so nothing was sent. The text is for people and holds no secret."""


class McpLostError(Exception):
    """A call was sent and its result will not come."""


class McpRefusedError(Exception):
    """The server answered with an error of the protocol: the call was not carried out."""


@dataclass(frozen=True)
class Commands:
    """Where stdio servers run, see `moorage_sandbox.mcp_commands`."""

    url: str
    token: str = field(default="", repr=False)


@dataclass(frozen=True)
class Server:
    """How to reach one. `connection` is what was sealed; its values are secret."""

    name: str
    transport: str
    connection: dict[str, Any] = field(repr=False)

    def secrets(self) -> list[str]:
        """Longest first: values of env, headers and the URL's query, and the key behind a header's `Bearer`."""
        headers = list(self.connection.get("headers", {}).values())
        keys = [word for value in headers for word in value.split() if len(word) >= MIN_KEY_CHARS]
        query = [value for _, value in parse_qsl(urlsplit(self.connection.get("url", "")).query)]
        values = {*self.connection.get("env", {}).values(), *headers, *keys, *query}
        return sorted((value for value in values if len(value) >= MIN_SECRET_CHARS), key=len, reverse=True)
