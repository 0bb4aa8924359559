"""What the skill toolset needs of others: the tools of a server that a skill names, and skills' files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moorage_api.agent.ports import ToolCall, ToolResult
from moorage_api.skills.bundles.manifest import Manifest, RuntimeType


@dataclass(frozen=True)
class DelegatedTool:
    """A tool of a skill's server. `name` is the server's own word for it."""

    name: str
    description: str
    parameters: dict[str, Any]
    read_only: bool = False


class SkillDelegate(Protocol):
    """Runs the tools of skills of one `runtime_type` where they are at home."""

    @property
    def runtime_type(self) -> RuntimeType: ...

    def tools(self, manifest: Manifest) -> Sequence[DelegatedTool]:
        """What the skill's server offers to this user; nothing while it is off, unknown or away."""
        ...

    async def call(self, manifest: Manifest, tool: str, call: ToolCall) -> ToolResult:
        """`content` has what clients show under `skill_result`."""
        ...


class SkillFiles(Protocol):
    async def read(self, digest: str) -> dict[str, bytes]:
        """The files of a version. Raises DomainError."""
        ...

    async def problem_with(self, skill_id: str, *, seconds: float) -> str:
        """Why the files are not in the sandbox; empty once they are."""
        ...
