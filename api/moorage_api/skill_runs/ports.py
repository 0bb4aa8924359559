"""The interfaces the skill toolset needs: the tools of a skill's MCP server or A2A agent, and the skills' files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moorage_api.agent.ports import ToolCall, ToolResult
from moorage_api.skills.bundles.manifest import Manifest, RuntimeType


@dataclass(frozen=True)
class DelegatedTool:
    """A tool of a skill's server. `name` is the tool's name on that server."""

    name: str
    description: str
    parameters: dict[str, Any]
    read_only: bool = False


class SkillDelegate(Protocol):
    """Runs the tools of skills with one `runtime_type` on their server."""

    @property
    def runtime_type(self) -> RuntimeType: ...

    def tools(self, manifest: Manifest) -> Sequence[DelegatedTool]:
        """The tools that the skill's server offers to this user; empty if it is off, unknown or unreachable."""
        ...

    async def call(self, manifest: Manifest, tool: str, call: ToolCall) -> ToolResult:
        """Run a tool. The text for clients is in the result's `content` under `skill_result`."""
        ...


class SkillFiles(Protocol):
    async def read(self, digest: str) -> dict[str, bytes]:
        """The files of a version. Raises DomainError."""
        ...

    async def problem_with(self, skill_id: str, *, seconds: float, needs_sandbox: bool = False) -> str:
        """Why the files are not in the sandbox; empty if they are. Waits for at most `seconds`.

        With `needs_sandbox` it first waits for the sandbox, as long as any call may. Raises SandboxLostError then.
        """
        ...
