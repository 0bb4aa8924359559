"""Which MCP connections are open. The SDK is imported with the first: most api processes never make one."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from moorage_api.outbound import Outbound

if TYPE_CHECKING:
    from moorage_api.tools.mcp_connection import McpConnection


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


Key = tuple[str, str, str]
"""A server's name, the digest of what was sealed, and for whom: people don't share a server's state."""


class McpConnections:
    """The open connections of this process. A key's connection is made at its first use and again after it ended."""

    def __init__(self, *, outbound: Outbound, commands: Commands) -> None:
        self._outbound = outbound
        self._commands = commands
        self._open: dict[Key, McpConnection] = {}

    @staticmethod
    async def load() -> None:
        """Import the SDK beside the event loop, which it would hold up for most of a second."""
        await asyncio.to_thread(importlib.import_module, "moorage_api.tools.mcp_connection")

    def connection(self, key: Key, server: Server) -> McpConnection:
        self._open = {other: one for other, one in self._open.items() if one.is_usable}
        if key not in self._open:
            from moorage_api.tools.mcp_connection import McpConnection

            self._open[key] = McpConnection(server, outbound=self._outbound, commands=self._commands)
        return self._open[key]

    async def forget(self, names: Sequence[str]) -> None:
        """Close what goes to these servers: their configuration has changed."""
        ended = [self._open.pop(key) for key in list(self._open) if key[0] in names]
        await asyncio.gather(*(one.close() for one in ended))

    async def forget_key(self, key: Key) -> None:
        if (one := self._open.pop(key, None)) is not None:
            await one.close()

    async def close(self) -> None:
        ended, self._open = list(self._open.values()), {}
        await asyncio.gather(*(one.close() for one in ended))
