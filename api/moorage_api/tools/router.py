"""Endpoints of MCP and A2A servers (everyone reads, admins change) and of each user's tool preferences."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path

from moorage_api.errors import ForbiddenError, UnauthenticatedError
from moorage_api.http.envelope import Envelope, ok
from moorage_api.http.provided import provide
from moorage_api.text import StorableText
from moorage_api.tools import schemas
from moorage_api.tools.a2a.service import A2aService
from moorage_api.tools.mcp.service import McpService
from moorage_api.users.callers import ConfigWriter, Credentials, CurrentUser, Users

config_router = APIRouter(prefix="/app-config", tags=["app-config"])
user_router = APIRouter(prefix="/user/tools", tags=["user-tools"])


async def is_admin(credentials: Credentials, users: Users) -> bool:
    """Whether the caller is an admin. Everybody may read these lists, so an invalid token is not an error."""
    if credentials is None:
        return False
    with suppress(UnauthenticatedError, ForbiddenError):
        return (await users.authenticate(credentials.credentials)).is_admin
    return False


IsAdmin = Annotated[bool, Depends(is_admin)]
Mcp = Annotated[McpService, Depends(provide(McpService))]
A2aId = Annotated[UUID, Path(description="The agent's id, from GET /api/app-config/a2a-servers")]
ServerName = Annotated[StorableText, Path(description="The server's name, from GET /api/app-config/mcp-servers")]
A2a = Annotated[A2aService, Depends(provide(A2aService))]


@config_router.get("/mcp-servers")
async def list_mcp_servers(mcp: Mcp, is_admin: IsAdmin) -> Envelope[schemas.McpServerList]:
    """List the servers with the result of their last probe. This connects to no server, so it does not wait."""
    return ok(await mcp.read_all(with_errors=is_admin))


@config_router.post("/mcp-servers", dependencies=[ConfigWriter])
async def put_mcp_servers(body: schemas.McpConfig, mcp: Mcp) -> Envelope[None]:
    """Add servers, or replace servers with the same names; others stay. Then list the tools of each enabled server."""
    await mcp.put(body)
    return ok()


@config_router.post("/mcp-servers/{server_name}/delete", dependencies=[ConfigWriter])
async def delete_mcp_server(server_name: ServerName, mcp: Mcp) -> Envelope[None]:
    """Delete a server and all users' preferences for it."""
    await mcp.delete(server_name)
    return ok()


@config_router.post("/mcp-servers/{server_name}/enabled", dependencies=[ConfigWriter])
async def set_mcp_server_enabled(server_name: ServerName, body: schemas.EnabledUpdate, mcp: Mcp) -> Envelope[None]:
    """Switch a server on or off for everyone. Switching on lists its tools again."""
    await mcp.set_enabled(server_name, enabled=body.enabled)
    return ok()


@config_router.post("/mcp-servers/{server_name}/refresh", dependencies=[ConfigWriter])
async def refresh_mcp_server(server_name: ServerName, mcp: Mcp) -> Envelope[None]:
    """Connect to a server and list its tools again."""
    await mcp.refresh([server_name])
    return ok()


@config_router.get("/a2a-servers")
async def list_a2a_servers(a2a: A2a) -> Envelope[schemas.A2aServerList]:
    """List the agents as their cards described them when they were added or last enabled. Connects to no agent."""
    return ok(await a2a.read_all())


@config_router.post("/a2a-servers", dependencies=[ConfigWriter])
async def create_a2a_server(body: schemas.A2aServerCreate, a2a: A2a) -> Envelope[None]:
    """Read the agent's card and add the agent. If it cannot be reached, the answer is 400 and nothing is stored."""
    await a2a.create(body.base_url)
    return ok()


@config_router.post("/a2a-servers/{a2a_id}/delete", dependencies=[ConfigWriter])
async def delete_a2a_server(a2a_id: A2aId, a2a: A2a) -> Envelope[None]:
    """Delete an agent and all users' preferences for it."""
    await a2a.delete(a2a_id)
    return ok()


@config_router.post("/a2a-servers/{a2a_id}/enabled", dependencies=[ConfigWriter])
async def set_a2a_server_enabled(a2a_id: A2aId, body: schemas.EnabledUpdate, a2a: A2a) -> Envelope[None]:
    """Switch an agent on or off for everyone. Switching on reads its card again."""
    await a2a.set_enabled(a2a_id, enabled=body.enabled)
    return ok()


@user_router.get("/mcp")
async def list_user_mcp_tools(user: CurrentUser, mcp: Mcp) -> Envelope[schemas.ToolList]:
    """List the MCP servers with the switch for everyone and the caller's own switch."""
    return ok(await mcp.list_for_user(user.id))


@user_router.post("/mcp/{server_name}/enabled")
async def set_user_mcp_tool(
    server_name: ServerName, body: schemas.EnabledUpdate, user: CurrentUser, mcp: Mcp
) -> Envelope[None]:
    """Switch it on or off for the caller's own runs. If it is off for everyone, it stays off."""
    await mcp.set_preference(user.id, server_name, enabled=body.enabled)
    return ok()


@user_router.get("/a2a")
async def list_user_a2a_tools(user: CurrentUser, a2a: A2a) -> Envelope[schemas.ToolList]:
    """List the A2A servers with the switch for everyone and the caller's own switch."""
    return ok(await a2a.list_for_user(user.id))


@user_router.post("/a2a/{a2a_id}/enabled")
async def set_user_a2a_tool(a2a_id: A2aId, body: schemas.EnabledUpdate, user: CurrentUser, a2a: A2a) -> Envelope[None]:
    """Switch it on or off for the caller's own runs. If it is off for everyone, it stays off."""
    await a2a.set_preference(user.id, a2a_id, enabled=body.enabled)
    return ok()
