"""Run the tools of skills that belong to an MCP server or to a remote agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from moorage_api.agent.ports import Attachments, Switches, ToolCall, ToolResult
from moorage_api.agent.toolsets.function_schema import text
from moorage_api.skill_runs.ports import DelegatedTool
from moorage_api.skills.bundles.manifest import Manifest, RuntimeType
from moorage_api.tools.a2a.service import A2aService, OfferedAgent
from moorage_api.tools.a2a.toolset import CALL, A2aToolset
from moorage_api.tools.mcp.service import McpService, OfferedServer
from moorage_api.tools.mcp.toolset import McpToolset

ASK = "ask"
"""The only tool of a skill with `runtime_type: a2a`."""


class McpDelegate:
    """`server` in the skill's manifest is the configured name of an MCP server."""

    def __init__(
        self, service: McpService, servers: Sequence[OfferedServer], attachments: Attachments, switches: Switches
    ) -> None:
        self._toolset = McpToolset(service, servers, attachments, switches)
        self._switches = switches
        self._servers = {server.name: server for server in servers}

    @property
    def runtime_type(self) -> RuntimeType:
        return "mcp"

    def tools(self, manifest: Manifest) -> Sequence[DelegatedTool]:
        server = self._servers.get(manifest.server)
        if server is None or not self._switches.is_on("mcp", server.name):
            return []
        return [
            DelegatedTool(tool["name"], tool["description"], tool["schema"], tool["read_only"])
            for tool in server.tools
            if not manifest.tools or tool["name"] in manifest.tools
        ]

    async def call(self, manifest: Manifest, tool: str, call: ToolCall) -> ToolResult:
        function = self._toolset.name_of(manifest.server, tool)
        return to_skill_result(await self._toolset.call(replace(call, function=function)))


class A2aDelegate:
    """`server` in the skill's manifest is the id or the address of a configured remote agent."""

    def __init__(
        self,
        service: A2aService,
        agents: Sequence[OfferedAgent],
        session_id: UUID,
        attachments: Attachments,
        switches: Switches,
    ) -> None:
        self._toolset = A2aToolset(service, agents, session_id, attachments, switches)
        self._switches = switches
        self._agents = {name: agent for agent in agents for name in (str(agent.id), agent.base_url.rstrip("/"))}

    @property
    def runtime_type(self) -> RuntimeType:
        return "a2a"

    def tools(self, manifest: Manifest) -> Sequence[DelegatedTool]:
        agent = self._agents.get(manifest.server.rstrip("/"))
        if agent is None or not self._switches.is_on("a2a", str(agent.id)):
            return []
        parameters = {
            "type": "object",
            "properties": {"query": text("The task, with everything the agent needs to know: it sees only this text")},
            "required": ["query"],
            "additionalProperties": False,
        }
        return [DelegatedTool(ASK, "Give the agent of this skill a task and wait for the result.", parameters)]

    async def call(self, manifest: Manifest, tool: str, call: ToolCall) -> ToolResult:
        agent = self._agents[manifest.server.rstrip("/")]
        args: dict[str, Any] = {"id": str(agent.id), "query": call.args["query"]}
        return to_skill_result(await self._toolset.call(replace(call, function=CALL.name, args=args)))


def to_skill_result(result: ToolResult) -> ToolResult:
    content = {
        "skill_result" if name in ("result", "a2a_result") else name: value for name, value in result.content.items()
    }
    return replace(result, content=content)
