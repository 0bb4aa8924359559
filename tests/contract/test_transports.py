"""The agent and remote servers: MCP over SSE and stdio, long names, and A2A agents."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from contract.peers import AGENT_ANSWER, MCP_TOOL, Peers, saying
from contract.server import Caller, ServerUnderTest, name
from contract.spec import proves

MCP = "/api/app-config/mcp-servers"
A2A = "/api/app-config/a2a-servers"
TRANSPORTS = [pytest.param("sse", marks=proves("mcp.sse")), pytest.param("stdio", marks=proves("mcp.stdio"))]


@dataclass(frozen=True)
class ConfiguredServer:
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


def over_sse(chosen: str, peers: Peers) -> ConfiguredServer:
    secret = name("secret")
    entry = {"transport": "sse", "url": f"{peers.url}/sse", "headers": {"X-Contract": secret}}
    return ConfiguredServer(chosen, entry, MCP_TOOL, {"text": "hello there"}, "echo: hello there", secret)


def over_stdio(chosen: str) -> ConfiguredServer:
    given = os.environ.get("CONTRACT_MCP_STDIO")
    if given is None:
        pytest.skip("CONTRACT_MCP_STDIO is not set: no command is named that speaks MCP on the server's machine")
    config = json.loads(given)
    secret = name("secret")
    environment = {**config.get("env", {}), "CONTRACT_SECRET": secret}
    entry = {
        "transport": "stdio",
        "command": config["command"],
        "args": config.get("args", []),
        "env": environment,
    }
    return ConfiguredServer(chosen, entry, config["tool"], config.get("arguments", {}), config["answer"], secret)


@pytest.fixture(scope="module", params=TRANSPORTS)
def remote(request: pytest.FixtureRequest, admin: Caller, peers: Peers) -> Iterator[ConfiguredServer]:
    """A server of each available transport."""
    chosen = name(str(request.param)).replace("-", "_")
    server = over_sse(chosen, peers) if request.param == "sse" else over_stdio(chosen)
    assert admin.post(MCP, json={"mcpServers": {chosen: server.entry}}) is None
    yield server
    admin.post(f"{MCP}/{chosen}/delete")


@pytest.fixture(scope="module")
def user(server: ServerUnderTest) -> Caller:
    return server.register()


def offered_functions(peers: Peers, user: Caller) -> set[str]:
    """The functions that the agent is offered in a new run."""
    seen = len(peers.requests)
    assert user.chat(user.new_session(), saying("work")).ending.event == "done"
    return {tool["function"]["name"] for request in peers.requests[seen:] for tool in request.get("tools") or []}


def test_a_server_of_each_transport_is_listed_with_its_tools(
    admin: Caller, nobody: Caller, remote: ConfiguredServer
) -> None:
    for reader in (nobody, admin):
        servers = reader.get(MCP)
        (item,) = [item for item in servers["mcp_servers"] if item["server_name"] == remote.name]
        assert (item["transport"], item["enabled"]) == (remote.entry["transport"], True)
        assert remote.tool in item["tools"]
        assert remote.secret not in str(servers)


def test_a_server_of_each_transport_is_switched(
    admin: Caller, nobody: Caller, user: Caller, peers: Peers, remote: ConfiguredServer
) -> None:
    for enabled in (False, True):
        assert admin.post(f"{MCP}/{remote.name}/enabled", json={"enabled": enabled}) is None
        (item,) = [item for item in nobody.get(MCP)["mcp_servers"] if item["server_name"] == remote.name]
        assert item["enabled"] is enabled
        assert (remote.function in offered_functions(peers, user)) is enabled


def test_the_agent_calls_a_server_of_each_transport(user: Caller, peers: Peers, remote: ConfiguredServer) -> None:
    peers.scripts[remote.name] = [(remote.function, remote.arguments)]
    turn = user.chat(user.new_session(), saying(remote.name))
    assert turn.ending.event == "done"
    (called,) = turn.all("tool", name="mcp", status="called")
    assert (called["function"], called["args"]) == (remote.function, remote.arguments)
    assert remote.answer in str(called["content"]["result"])
    assert remote.secret not in str([frame.text for frame in turn.frames])


@proves("functions.length")
def test_a_long_name_of_a_server_is_cut(admin: Caller, user: Caller, peers: Peers) -> None:
    """Two long names that differ only at the end stay different."""
    names = [f"{name('long')}_{'x' * 40}_{end}"[:64] for end in "ab"]
    entry = {"url": f"{peers.url}/mcp"}
    admin.post(MCP, json={"mcpServers": dict.fromkeys(names, entry)})
    try:
        functions = [function for function in offered_functions(peers, user) if function.startswith("mcp_long")]
        assert len(set(functions)) == 2
        assert all(len(function) <= 64 for function in functions)
        calls = len(peers.mcp_calls)
        peers.scripts["cut"] = [(function, {"text": "cut"}) for function in functions]
        assert user.chat(user.new_session(), saying("cut")).ending.event == "done"
        assert [call["name"] for call in peers.mcp_calls[calls:]] == [MCP_TOOL] * 2
    finally:
        for chosen in names:
            admin.post(f"{MCP}/{chosen}/delete")


@pytest.fixture
def agent(admin: Caller, peers: Peers) -> Iterator[str]:
    """The id of a configured A2A agent."""
    before = {item["id"] for item in admin.get(A2A)["a2a_servers"]}
    admin.post(A2A, json={"base_url": peers.url})
    (added,) = {item["id"] for item in admin.get(A2A)["a2a_servers"]} - before
    yield added
    admin.post(f"{A2A}/{added}/delete")


@proves("a2a.call", "tools.preference")
def test_an_agent_is_offered_called_and_shown(server: ServerUnderTest, peers: Peers, agent: str) -> None:
    user = server.register()
    query = "What do you see?"
    peers.scripts["a2a"] = [("get_remote_agent_cards", {}), ("call_remote_agent", {"id": agent, "query": query})]
    calls = len(peers.agent_calls)
    turn = user.chat(user.new_session(), saying("a2a"))
    assert turn.ending.event == "done"
    cards, called = turn.all("tool", name="a2a", status="called")
    assert (cards["function"], called["function"]) == ("get_remote_agent_cards", "call_remote_agent")
    assert agent in str(cards["content"]["a2a_result"])
    assert called["args"] == {"id": agent, "query": query}
    assert AGENT_ANSWER in str(called["content"]["a2a_result"])
    assert query in str(peers.agent_calls[calls:])
    parameters = peers.offered_functions()["call_remote_agent"]
    assert set(parameters["properties"]) == set(parameters["required"]) == {"id", "query"}
    user.post(f"/api/user/tools/a2a/{agent}/enabled", json={"enabled": False})
    calls = len(peers.agent_calls)
    assert user.chat(user.new_session(), saying("a2a")).ending.event == "done"
    assert len(peers.agent_calls) == calls


@proves("a2a.listing", "mcp.dead-server")
def test_listing_servers_sends_no_request_to_them(
    server: ServerUnderTest, peers: Peers, remote: ConfiguredServer, agent: str
) -> None:
    asked = (peers.cards_read, len(peers.mcp_headers))
    for reader in (server.nobody(), server.admin(), server.register()):
        for path in (MCP, A2A):
            assert reader.get(path)
    user = server.register()
    assert user.get("/api/user/tools/mcp")["tools"]
    assert user.get("/api/user/tools/a2a")["tools"]
    assert (peers.cards_read, len(peers.mcp_headers)) == asked
