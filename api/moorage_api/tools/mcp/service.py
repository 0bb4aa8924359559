"""MCP servers: their configuration, the result of their last probe, and the calls of a run."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from moorage_api.config.sealing import Sealing
from moorage_api.database import Database
from moorage_api.errors import InvalidError, UnavailableError
from moorage_api.outbound import Outbound
from moorage_api.preferences.repository import PreferenceRepository
from moorage_api.tools.mcp.pool import McpConnections
from moorage_api.tools.mcp.server import McpLostError, McpServer, McpUnavailableError
from moorage_api.tools.models import McpServerRow
from moorage_api.tools.repository import ToolRepository
from moorage_api.tools.schemas import McpConfig, McpServerList, McpServerRead, ToolList, ToolWithPreference

if TYPE_CHECKING:
    from mcp_types import CallToolResult, Tool

logger = logging.getLogger(__name__)

MAX_SERVERS = 50
MAX_TOOLS = 200
"""Most tools of one server; the rest is ignored."""
MAX_SCHEMA_CHARS = 16_384
PROBE_SECONDS = 20.0
RUN_PROBE_SECONDS = 3.0
"""How long the start of a run waits for probes. A slower server is offered with the tools of its last probe."""

FAILED_PROBE_SECONDS = 0.5
"""How much longer it then waits for servers whose last probe failed, because they rarely answer again."""


@dataclass(frozen=True)
class OfferedServer:
    """A server that a run may use, with its tools (`{name, description, schema, read_only}`)."""

    name: str
    tools: Sequence[dict[str, Any]]
    server: McpServer
    key: tuple[str, str, str]


class McpService:
    def __init__(self, db: Database, sealing: Sealing, connections: McpConnections, outbound: Outbound) -> None:
        self._db = db
        self._sealing = sealing
        self._connections = connections
        self._outbound = outbound

    async def read_all(self, *, with_errors: bool) -> McpServerList:
        """`with_errors`: include the errors of probes. They contain texts of the server, so only admins get them."""
        async with self._db() as tx:
            rows = await ToolRepository(tx).mcp_servers()
        return McpServerList(mcp_servers=[to_read(row, with_error=with_errors) for row in rows])

    async def put(self, config: McpConfig) -> None:
        """Store all servers or none, then probe the enabled ones. Raises OutboundRefusedError and InvalidError."""
        for server in config.mcpServers.values():
            if server.transport != "stdio":
                await self._outbound.check("mcp", (server.url or "").strip())
        names = list(config.mcpServers)
        async with self._db.begin() as tx:
            repository = ToolRepository(tx)
            if await repository.count_mcp_servers(besides=names) + len(names) > MAX_SERVERS:
                raise InvalidError(f"At most {MAX_SERVERS} MCP servers can be configured; delete some first")
            for name, server in config.mcpServers.items():
                await repository.put_mcp_server(
                    name,
                    transport=server.transport,
                    description=server.description or "",
                    enabled=server.enabled,
                    sealed=self._sealing.seal(server.connection()),
                )
        await self._connections.forget(names)
        await self.refresh([name for name, server in config.mcpServers.items() if server.enabled])

    async def delete(self, name: str) -> None:
        async with self._db.begin() as tx:
            await ToolRepository(tx).delete_mcp_server(name)
        await self._connections.forget([name])

    async def set_enabled(self, name: str, *, enabled: bool) -> None:
        async with self._db.begin() as tx:
            await ToolRepository(tx).set_mcp_enabled(name, enabled=enabled)
        if enabled:
            await self.refresh([name])

    async def refresh(self, names: Sequence[str]) -> None:
        """Probe these servers concurrently, for a limited time. Raises NotFoundError."""
        async with self._db() as tx:
            rows = [await ToolRepository(tx).mcp_server(name) for name in names]
        await self._connections.forget(names)
        await asyncio.gather(*(self._probe(row, for_whom="") for row in rows))

    async def list_for_user(self, user_id: UUID) -> ToolList:
        async with self._db() as tx:
            repository = ToolRepository(tx)
            rows, wanted = await repository.mcp_servers(), await PreferenceRepository(tx).get(user_id, "mcp")
        return ToolList(
            tools=[
                ToolWithPreference(
                    tool_id=row.name,
                    tool_name=row.name,
                    description=row.description,
                    enabled_global=row.enabled,
                    enabled_user=wanted.get(row.name, True),
                )
                for row in rows
            ]
        )

    async def set_preference(self, user_id: UUID, name: str, *, enabled: bool) -> None:
        """Raises NotFoundError."""
        async with self._db.begin() as tx:
            repository = ToolRepository(tx)
            await repository.mcp_server(name)
            await PreferenceRepository(tx).set(user_id, "mcp", name, enabled=enabled)

    async def list_for_run(self, user_id: UUID) -> list[OfferedServer]:
        """Probe the servers that a run of this user may use, and return those that have tools.

        The time is limited, so a slow or unreachable server does not delay the run.
        """
        async with self._db() as tx:
            repository = ToolRepository(tx)
            rows, wanted = await repository.mcp_servers(), await PreferenceRepository(tx).get(user_id, "mcp")
        rows = [row for row in rows if row.enabled and wanted.get(row.name, True)]
        probes = {row.name: asyncio.create_task(self._probe(row, for_whom=str(user_id))) for row in rows}
        await until_done([probes[row.name] for row in rows if not row.probe.get("error")], seconds=RUN_PROBE_SECONDS)
        await until_done(list(probes.values()), seconds=FAILED_PROBE_SECONDS)
        offered = []
        for row in rows:
            probe = probes[row.name]
            tools = probe.result() if probe.done() else row.probe.get("tools")
            probe.cancel()  # does not close the connection; does nothing if the probe is done
            if tools and (server := self._decrypt(row)) is not None:
                offered.append(OfferedServer(row.name, tools, server, self._key(row, str(user_id))))
        await asyncio.gather(*probes.values(), return_exceptions=True)
        return offered

    async def call(self, to: OfferedServer, tool: str, args: dict[str, Any], *, seconds: float) -> CallToolResult:
        """Call a tool. It is retried once if the first attempt was certainly not sent. Raises as McpConnection.call."""
        try:
            return await self._connections.connection(to.key, to.server).call(tool, args, seconds=seconds)
        except McpUnavailableError:
            return await self._connections.connection(to.key, to.server).call(tool, args, seconds=seconds)

    def _decrypt(self, row: McpServerRow) -> McpServer | None:
        try:
            return McpServer(row.name, row.transport, self._sealing.open(row.sealed))
        except UnavailableError as error:
            logger.warning("MCP server %s cannot be used: %s", row.name, error)
            return None

    @staticmethod
    def _key(row: McpServerRow, for_whom: str) -> tuple[str, str, str]:
        return (row.name, hashlib.sha256(row.sealed).hexdigest(), for_whom)

    async def _probe(self, row: McpServerRow, *, for_whom: str) -> list[dict[str, Any]]:
        """List the server's tools, and store them with the error, if there was one."""
        tools: list[dict[str, Any]] = []
        problem = ""
        server = self._decrypt(row)
        if server is None:
            problem = "The stored configuration was encrypted with another key: configure the server again"
        else:
            try:
                await self._connections.load()
                async with asyncio.timeout(PROBE_SECONDS):
                    found = await self._connections.connection(self._key(row, for_whom), server).tools()
                tools = [to_stored_tool(tool) for tool in found[:MAX_TOOLS]]
            except (McpUnavailableError, McpLostError) as error:
                problem = str(error)
            except TimeoutError:
                problem = "The server did not answer in time"
        if problem:
            logger.warning("MCP server %s: %s", row.name, problem)
        probe = {"tools": tools, "error": problem}
        if probe != row.probe:
            async with self._db.begin() as tx:
                await ToolRepository(tx).set_probe(row.name, sealed=row.sealed, probe=probe)
        if not for_whom and server is not None:
            await self._connections.forget_key(self._key(row, for_whom))
        return tools


async def until_done(tasks: Sequence[asyncio.Task[Any]], *, seconds: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


def to_stored_tool(tool: Tool) -> dict[str, Any]:
    """The fields of a tool that a run needs. A tool is read-only only if its server says so."""
    annotations = tool.annotations
    return {
        "name": remove_nul(tool.name)[:500],
        "description": remove_nul(tool.description or tool.title or tool.name)[:2000],
        "schema": to_stored_schema(tool.input_schema),
        "read_only": bool(annotations and annotations.read_only_hint),
    }


def to_stored_schema(schema: Any) -> dict[str, Any]:
    """The schema of a tool's arguments. If we cannot check or store it: a schema that accepts any arguments."""
    anything = {"type": "object", "properties": {}}
    try:
        text = json.dumps(schema)
    except (ValueError, RecursionError):
        return anything
    if len(text) > MAX_SCHEMA_CHARS or "\\u0000" in text or not is_usable_schema(schema):
        return anything
    return anything | {name: value for name, value in schema.items() if name != "$schema"}


def is_usable_schema(schema: Any) -> bool:
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        return False
    properties, required = schema.get("properties", {}), schema.get("required", [])
    return (
        isinstance(properties, dict)
        and all(isinstance(one, dict) and isinstance(one.get("enum", []), list) for one in properties.values())
        and isinstance(required, list)
        and all(isinstance(name, str) for name in required)
    )


def remove_nul(text: str) -> str:
    """Remove NUL characters, because PostgreSQL cannot store them in JSON."""
    return text.replace("\x00", "")


def to_read(row: McpServerRow, *, with_error: bool) -> McpServerRead:
    return McpServerRead.model_validate(
        {
            "server_name": row.name,
            "enabled": row.enabled,
            "transport": row.transport,
            "tools": [tool["name"] for tool in row.probe.get("tools", ())],
            "error": row.probe.get("error", "") if with_error else "",
        }
    )
