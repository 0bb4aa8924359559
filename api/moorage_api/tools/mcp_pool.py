"""Which MCP connections are open. The SDK is imported with the first: most api processes never make one."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moorage_api.outbound import Outbound
from moorage_api.tools.mcp_server import Commands, Server

if TYPE_CHECKING:
    from moorage_api.tools.mcp_connection import McpConnection


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
