"""MCP and A2A servers, and the preferences of each user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from contract.peers import MCP_TOOL, Peers
from contract.server import Caller, ServerUnderTest, name
from contract.spec import proves

MCP = "/api/app-config/mcp-servers"
A2A = "/api/app-config/a2a-servers"
TOOL = {"tool_id", "tool_name", "description", "enabled_global", "enabled_user"}
CARD = {"id", "name", "description", "input_modes", "output_modes", "streaming", "push_notifications", "enabled"}


def mcp_servers(caller: Caller) -> dict[str, Any]:
    return {item["server_name"]: item for item in caller.get(MCP)["mcp_servers"]}


def a2a_servers(caller: Caller) -> dict[str, Any]:
    return {item["id"]: item for item in caller.get(A2A)["a2a_servers"]}


@pytest.fixture
def mcp(admin: Caller, peers: Peers) -> Iterator[str]:
    """The name of a configured MCP server."""
    chosen = name("mcp")
    entry = {"url": f"{peers.url}/mcp", "description": "Of the contract"}
    assert admin.post(MCP, json={"mcpServers": {chosen: entry}}) is None
    yield chosen
    admin.ask("POST", f"{MCP}/{chosen}/delete")


@pytest.fixture
def a2a(admin: Caller, peers: Peers) -> Iterator[str]:
    """The id of a configured A2A server."""
    before = set(a2a_servers(admin))
    assert admin.post(A2A, json={"base_url": peers.url}) is None
    (added,) = set(a2a_servers(admin)) - before
    yield added
    admin.ask("POST", f"{A2A}/{added}/delete")


@proves(f"GET {MCP}: success", f"POST {MCP}: success", "mcp.default-transport")
def test_an_mcp_server_is_listed_with_its_tools(nobody: Caller, mcp: str) -> None:
    item = mcp_servers(nobody)[mcp]
    assert (item["transport"], item["enabled"], item["tools"]) == ("streamable_http", True, [MCP_TOOL])


@proves(f"POST {MCP}: success", "mcp.replace")
def test_an_existing_name_replaces_only_that_server(admin: Caller, peers: Peers, mcp: str) -> None:
    other = name("mcp")
    entry = {"transport": "streamable_http", "url": f"{peers.url}/mcp"}
    admin.post(MCP, json={"mcpServers": {other: entry}})
    admin.post(MCP, json={"mcpServers": {other: {**entry, "enabled": False}}})
    listed = mcp_servers(admin)
    assert (listed[mcp]["enabled"], listed[other]["enabled"]) == (True, False)
    admin.post(f"{MCP}/{other}/delete")


@proves(f"POST {MCP}: 422")
@pytest.mark.parametrize(
    "entry",
    [
        {"transport": "sse"},
        {"transport": "streamable_http"},
        {"transport": "stdio"},
        {"transport": "pigeon", "url": "http://127.0.0.1:9"},
    ],
    ids=lambda entry: str(entry["transport"]),
)
def test_an_mcp_server_without_the_fields_of_its_transport_is_refused(admin: Caller, entry: dict[str, str]) -> None:
    chosen = name("mcp")
    admin.ask("POST", MCP, json={"mcpServers": {chosen: entry}}, expect=422)
    assert chosen not in mcp_servers(admin)


@proves(f"POST {MCP}/{{server_name}}/enabled: success")
def test_an_mcp_server_is_switched(admin: Caller, nobody: Caller, mcp: str) -> None:
    for enabled in (False, True):
        assert admin.post(f"{MCP}/{mcp}/enabled", json={"enabled": enabled}) is None
        assert mcp_servers(nobody)[mcp]["enabled"] is enabled


@proves(f"POST {MCP}/{{server_name}}/enabled: 422")
def test_a_switch_needs_a_state(admin: Caller, mcp: str) -> None:
    admin.ask("POST", f"{MCP}/{mcp}/enabled", json={}, expect=422)


@proves(f"POST {MCP}/{{server_name}}/delete: success")
def test_a_deleted_mcp_server_is_gone(admin: Caller, peers: Peers) -> None:
    chosen = name("mcp")
    admin.post(MCP, json={"mcpServers": {chosen: {"url": f"{peers.url}/mcp"}}})
    assert admin.post(f"{MCP}/{chosen}/delete") is None
    assert chosen not in mcp_servers(admin)
    admin.ask("POST", f"{MCP}/{chosen}/delete", expect=404)


@proves("mcp.dead-server", "mcp.secrets")
def test_a_server_that_hangs_does_not_delay_the_list_for_ever(admin: Caller, nobody: Caller, peers: Peers) -> None:
    chosen, secret = name("mcp"), name("secret")
    entry = {"url": f"{peers.url}/hang", "headers": {"X-Secret": secret}, "env": {"TOKEN": secret}}
    admin.post(MCP, json={"mcpServers": {chosen: entry}})
    listed = nobody.get(MCP)
    assert chosen in str(listed)
    assert secret not in str(listed)
    admin.post(f"{MCP}/{chosen}/delete")


@proves(f"GET {A2A}: success", f"POST {A2A}: success")
def test_an_a2a_server_is_listed_by_its_card(nobody: Caller, a2a: str) -> None:
    item = a2a_servers(nobody)[a2a]
    assert set(item) >= CARD
    assert (item["name"], item["streaming"], item["push_notifications"]) == ("Contract agent", False, False)
    assert (item["input_modes"], item["output_modes"], item["enabled"]) == (["text/plain"], ["text/plain"], True)


@proves(f"POST {A2A}: 400")
def test_an_unreachable_agent_is_not_stored(admin: Caller, peers: Peers) -> None:
    before = a2a_servers(admin)
    admin.ask("POST", A2A, json={"base_url": "http://127.0.0.1:9"}, expect=400)
    assert a2a_servers(admin) == before


@proves(f"POST {A2A}: 422")
def test_an_agent_needs_an_address(admin: Caller) -> None:
    for body in ({}, {"base_url": "ftp://example.com"}):
        admin.ask("POST", A2A, json=body, expect=422)


@proves(f"POST {A2A}/{{a2a_id}}/enabled: success")
def test_an_a2a_server_is_switched(admin: Caller, nobody: Caller, a2a: str) -> None:
    for enabled in (False, True):
        assert admin.post(f"{A2A}/{a2a}/enabled", json={"enabled": enabled}) is None
        assert a2a_servers(nobody)[a2a]["enabled"] is enabled


@proves(f"POST {A2A}/{{a2a_id}}/enabled: 422")
def test_a_switch_of_an_agent_needs_a_state(admin: Caller, a2a: str) -> None:
    admin.ask("POST", f"{A2A}/{a2a}/enabled", json={}, expect=422)


@proves(f"POST {A2A}/{{a2a_id}}/delete: success")
def test_a_deleted_a2a_server_is_gone(admin: Caller, peers: Peers) -> None:
    before = set(a2a_servers(admin))
    admin.post(A2A, json={"base_url": peers.url})
    (added,) = set(a2a_servers(admin)) - before
    assert admin.post(f"{A2A}/{added}/delete") is None
    assert set(a2a_servers(admin)) == before


@proves(
    "GET /api/user/tools/mcp: success",
    "POST /api/user/tools/mcp/{server_name}/enabled: success",
    "tools.preference",
)
def test_each_user_chooses_among_mcp_servers(server: ServerUnderTest, admin: Caller, mcp: str) -> None:
    check_preferences(server, "mcp", mcp)
    admin.post(f"{MCP}/{mcp}/enabled", json={"enabled": False})
    assert tool_of(server.register(), "mcp", mcp)["enabled_global"] is False


@proves("GET /api/user/tools/a2a: success", "POST /api/user/tools/a2a/{a2a_id}/enabled: success", "tools.preference")
def test_each_user_chooses_among_agents(server: ServerUnderTest, a2a: str) -> None:
    check_preferences(server, "a2a", a2a)


def tool_of(caller: Caller, kind: str, tool_id: str) -> dict[str, Any]:
    tools = caller.get(f"/api/user/tools/{kind}")["tools"]
    found: dict[str, Any] = next(tool for tool in tools if tool["tool_id"] == tool_id)
    return found


def check_preferences(server: ServerUnderTest, kind: str, tool_id: str) -> None:
    one, other = server.register(), server.register()
    assert set(tool_of(one, kind, tool_id)) >= TOOL
    assert (tool_of(one, kind, tool_id)["enabled_global"], tool_of(one, kind, tool_id)["enabled_user"]) == (True, True)
    for enabled in (False, True):
        assert one.post(f"/api/user/tools/{kind}/{tool_id}/enabled", json={"enabled": enabled}) is None
        assert tool_of(one, kind, tool_id)["enabled_user"] is enabled
        assert tool_of(other, kind, tool_id)["enabled_user"] is True


@proves("POST /api/user/tools/mcp/{server_name}/enabled: 422")
def test_a_preference_for_a_server_needs_a_state(alice: Caller, mcp: str) -> None:
    alice.ask("POST", f"/api/user/tools/mcp/{mcp}/enabled", json={}, expect=422)


@proves("POST /api/user/tools/a2a/{a2a_id}/enabled: 422")
def test_a_preference_for_an_agent_needs_a_state(alice: Caller, a2a: str) -> None:
    alice.ask("POST", f"/api/user/tools/a2a/{a2a}/enabled", json={}, expect=422)
