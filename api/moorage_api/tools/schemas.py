"""Request and response bodies of the MCP and A2A configuration and of users' tool preferences."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from moorage_api.config.schemas import BaseUrl
from moorage_api.text import HeaderName, HeaderSecret, StorableSecret, StorableText, check_storable

Transport = Literal["stdio", "sse", "streamable_http"]


def check_name(name: str) -> str:
    if name in (".", "..") or name != name.strip() or re.search(r"[/\\\x00-\x1f\x7f]", name):
        raise ValueError(
            "must not be `.` or `..`, contain slashes or control characters, or begin or end with white space"
        )
    return check_storable(name)


ServerName = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(check_name)]
Secret = Annotated[StorableSecret, Field(max_length=16_384)]
HeaderValue = Annotated[HeaderSecret, Field(max_length=16_384)]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,199}$")]
Argument = Annotated[StorableText, Field(max_length=8192)]


class McpServerConfig(BaseModel):
    """How to reach one MCP server. `env` and `headers` are secret: stored encrypted, never shown."""

    transport: Transport = "streamable_http"
    enabled: bool = True
    description: Annotated[StorableText, Field(max_length=2000)] | None = None
    env: dict[VariableName, Secret] | None = Field(default=None, max_length=100)
    command: Annotated[StorableText, Field(max_length=1024)] | None = None
    args: list[Argument] | None = Field(default=None, max_length=100)
    url: Annotated[StorableText, Field(max_length=2048)] | None = None
    headers: dict[HeaderName, HeaderValue] | None = Field(default=None, max_length=100)

    @model_validator(mode="after")
    def _has_what_its_transport_needs(self) -> Self:
        """Source: the HTTP contract, "MCPConfig"."""
        if self.transport == "stdio" and not (self.command or "").strip():
            raise ValueError("transport stdio requires command")
        if self.transport != "stdio" and not (self.url or "").strip():
            raise ValueError(f"transport {self.transport} requires url")
        return self

    def connection(self) -> dict[str, Any]:
        """The secret part of the configuration in plain text. The caller encrypts it."""
        if self.transport == "stdio":
            env = {name: value.get_secret_value() for name, value in (self.env or {}).items()}
            return {"command": (self.command or "").strip(), "args": self.args or [], "env": env}
        headers = {name: value.get_secret_value() for name, value in (self.headers or {}).items()}
        return {"url": (self.url or "").strip(), "headers": headers}


class McpConfig(BaseModel):
    mcpServers: dict[ServerName, McpServerConfig] = Field(min_length=1, max_length=50)


class McpServerRead(BaseModel):
    """An MCP server with the result of its last probe. `error` tells admins why there are no tools."""

    server_name: str
    enabled: bool
    transport: Transport
    tools: list[str]
    error: str = ""


class McpServerList(BaseModel):
    mcp_servers: list[McpServerRead]


class EnabledUpdate(BaseModel):
    enabled: bool


class A2aServerCreate(BaseModel):
    base_url: BaseUrl


class A2aServerRead(BaseModel):
    """A remote agent, as its card described it when the agent was added or last enabled."""

    id: UUID
    name: str
    description: str
    input_modes: list[str]
    output_modes: list[str]
    streaming: bool
    push_notifications: bool
    enabled: bool


class A2aServerList(BaseModel):
    a2a_servers: list[A2aServerRead]


class ToolWithPreference(BaseModel):
    """A tool with both switches. A user's runs can use it if both are on."""

    tool_id: str
    tool_name: str
    description: str
    enabled_global: bool
    enabled_user: bool


class ToolList(BaseModel):
    tools: list[ToolWithPreference]
