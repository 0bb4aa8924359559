"""The open MCP connections. The MCP SDK is imported with the first one, because most api processes never need it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moorage_api.outbound import Outbound
from moorage_api.tools.mcp.server import McpRunnerAddress, McpServer

if TYPE_CHECKING:
    from moorage_api.tools.mcp.connection import McpConnection


Key = tuple[str, str, str]
"""Server name, digest of its configuration, and user id: users do not share a connection, as a server keeps state."""


class McpConnections:
    """The open connections of this process. A connection is opened at its first use and reopened after it ended."""

    def __init__(self, *, outbound: Outbound, commands: McpRunnerAddress) -> None:
        self._outbound = outbound
        self._commands = commands
        self._open: dict[Key, McpConnection] = {}

    @staticmethod
    async def load() -> None:
        """Import the SDK in a thread. The import takes most of a second and would block the event loop."""
        await asyncio.to_thread(importlib.import_module, "moorage_api.tools.mcp.connection")

    def connection(self, key: Key, server: McpServer) -> McpConnection:
        self._open = {other: one for other, one in self._open.items() if one.is_usable}
        if key not in self._open:
            from moorage_api.tools.mcp.connection import McpConnection

            self._open[key] = McpConnection(server, outbound=self._outbound, commands=self._commands)
        return self._open[key]

    async def forget(self, names: Sequence[str]) -> None:
        """Close the connections to these servers, because their configuration has changed."""
        ended = [self._open.pop(key) for key in list(self._open) if key[0] in names]
        await asyncio.gather(*(one.close() for one in ended))

    async def forget_key(self, key: Key) -> None:
        if (one := self._open.pop(key, None)) is not None:
            await one.close()

    async def close(self) -> None:
        ended, self._open = list(self._open.values()), {}
        await asyncio.gather(*(one.close() for one in ended))
