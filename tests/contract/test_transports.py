"""MCP over SSE, from the suite's peers, and over stdio, from a command that the server's operator names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from contract.peers import MCP_TOOL, Peers, saying
from contract.server import Caller, Server, name
from contract.spec import proves

MCP = "/api/app-config/mcp-servers"
TRANSPORTS = [pytest.param("sse", marks=proves("mcp.sse")), pytest.param("stdio", marks=proves("mcp.stdio"))]


@dataclass(frozen=True)
class Remote:
    """A server as it is configured, and a call of it with words that are in the result."""

    name: str
    entry: dict[str, Any]
    tool: str
    arguments: dict[str, Any]
    answer: str
    secret: str

    @property
    def function(self) -> str:
        return f"mcp_{self.name}_{self.tool}"


def over_sse(chosen: str, peers: Peers) -> Remote:
    secret = name("secret")
    entry = {"transport": "sse", "url": f"{peers.url}/sse", "headers": {"X-Contract": secret}}
    return Remote(chosen, entry, MCP_TOOL, {"text": "hello there"}, "echo: hello there", secret)


def over_stdio(chosen: str) -> Remote:
    given = os.environ.get("CONTRACT_MCP_STDIO")
    if given is None:
        pytest.skip("CONTRACT_MCP_STDIO is not set: no command is named that speaks MCP on the server's machine")
    told = json.loads(given)
    secret = name("secret")
    environment = {**told.get("env", {}), "CONTRACT_SECRET": secret}
    entry = {"transport": "stdio", "command": told["command"], "args": told.get("args", []), "env": environment}
    return Remote(chosen, entry, told["tool"], told.get("arguments", {}), told["answer"], secret)


@pytest.fixture(scope="module", params=TRANSPORTS)
def remote(request: pytest.FixtureRequest, admin: Caller, peers: Peers) -> Iterator[Remote]:
    """A server of each transport that is there."""
    chosen = name(str(request.param)).replace("-", "_")
    server = over_sse(chosen, peers) if request.param == "sse" else over_stdio(chosen)
    assert admin.post(MCP, json={"mcpServers": {chosen: server.entry}}) is None
    yield server
    admin.post(f"{MCP}/{chosen}/delete")


@pytest.fixture(scope="module")
def user(server: Server) -> Caller:
    return server.register()


def offered(peers: Peers, user: Caller) -> set[str]:
    """What the agent is offered in a run that begins now."""
    seen = len(peers.requests)
    assert user.chat(user.new_session(), saying("work")).ending.event == "done"
    return {tool["function"]["name"] for request in peers.requests[seen:] for tool in request.get("tools") or []}


def test_a_server_of_each_transport_is_listed_with_its_tools(admin: Caller, nobody: Caller, remote: Remote) -> None:
    for reader in (nobody, admin):
        servers = reader.get(MCP)
        (item,) = [item for item in servers["mcp_servers"] if item["server_name"] == remote.name]
        assert (item["transport"], item["enabled"]) == (remote.entry["transport"], True)
        assert remote.tool in item["tools"]
        assert remote.secret not in str(servers)


def test_a_server_of_each_transport_is_switched(
    admin: Caller, nobody: Caller, user: Caller, peers: Peers, remote: Remote
) -> None:
    for enabled in (False, True):
        assert admin.post(f"{MCP}/{remote.name}/enabled", json={"enabled": enabled}) is None
        (item,) = [item for item in nobody.get(MCP)["mcp_servers"] if item["server_name"] == remote.name]
        assert item["enabled"] is enabled
        assert (remote.function in offered(peers, user)) is enabled


def test_the_agent_calls_a_server_of_each_transport(user: Caller, peers: Peers, remote: Remote) -> None:
    peers.scripts[remote.name] = [(remote.function, remote.arguments)]
    turn = user.chat(user.new_session(), saying(remote.name))
    assert turn.ending.event == "done"
    (called,) = turn.all("tool", name="mcp", status="called")
    assert (called["function"], called["args"]) == (remote.function, remote.arguments)
    assert remote.answer in str(called["content"]["result"])
    assert remote.secret not in str([frame.text for frame in turn.frames])
