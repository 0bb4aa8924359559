"""Published MCP servers on every transport, from the configuration to the result of a call."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from sqlalchemy import text

from moorage_api.database import create_engine
from moorage_api.tools.mcp.server import McpServer
from support.accounts import Person, client_for, data
from support.llm import Call
from support.remote_tools import ToolServer
from support.world import ToolsWorld, find_called

SECRET = "sk-secret-of-a-server"


def stdio(*argv: str, **env: str) -> dict[str, Any]:
    return {"transport": "stdio", "command": argv[0], "args": list(argv[1:]), "env": env}


async def put(root: Person, **servers: dict[str, Any]) -> None:
    data(await root.client.post("/api/app-config/mcp-servers", json={"mcpServers": servers}))


async def list_servers(person: Person) -> dict[str, dict[str, Any]]:
    servers = data(await person.client.get("/api/app-config/mcp-servers"))["mcp_servers"]
    return {server["server_name"]: server for server in servers}


async def test_an_agent_calls_tools_of_stdio_servers(world: ToolsWorld, root: Person, alice: Person) -> None:
    await put(
        root,
        time=stdio("mcp-server-time", "--local-timezone", "UTC"),
        git=stdio("mcp-server-git"),
        fetch=stdio("mcp-server-fetch"),
        files=stdio("mcp-server-filesystem", "/home/ubuntu"),
        everything=stdio("mcp-server-everything", API_KEY=SECRET),
    )
    servers = await list_servers(root)
    assert {name: server["error"] for name, server in servers.items() if server["error"]} == {}
    assert servers["time"]["tools"] == ["get_current_time", "convert_time"]
    assert servers["time"]["transport"] == "stdio"
    chat = await world.chat(
        alice,
        "use the stdio servers",
        Call("mcp_time_get_current_time", {"timezone": "Asia/Shanghai"}),
        Call("mcp_files_write_file", {"path": "/home/ubuntu/note.txt", "content": "hello"}),
        Call("mcp_files_read_text_file", {"path": "/home/ubuntu/note.txt"}),
        Call("mcp_git_git_status", {"repo_path": "/home/ubuntu"}),
        Call("mcp_fetch_fetch", {"url": "http://127.0.0.1:1/"}),
        Call("mcp_everything_get-sum", {"a": 2, "b": 40}),
    )
    assert "Asia/Shanghai" in find_called(chat, "mcp_time_get_current_time")["content"]["result"]
    assert find_called(chat, "mcp_time_get_current_time")["name"] == "mcp"
    assert "hello" in find_called(chat, "mcp_files_read_text_file")["content"]["result"]
    assert "42" in find_called(chat, "mcp_everything_get-sum")["content"]["result"]
    assert "git_status: /home/ubuntu" in find_called(chat, "mcp_git_git_status")["content"]["result"]  # no repository
    assert find_called(chat, "mcp_fetch_fetch")["content"]["result"]
    for name in ("time", "git", "fetch", "files", "everything"):
        data(await root.client.post(f"/api/app-config/mcp-servers/{name}/delete"))
    assert await list_servers(root) == {}


@pytest.mark.parametrize(("transport", "path"), [("sse", "/sse"), ("streamable_http", "/mcp")])
async def test_an_agent_calls_tools_of_http_servers(
    world: ToolsWorld, root: Person, alice: Person, sse: ToolServer, streamable: ToolServer, transport: str, path: str
) -> None:
    server = sse if transport == "sse" else streamable
    config = {"transport": transport, "url": server.url + path, "headers": {"Authorization": f"Bearer {SECRET}"}}
    await put(root, web=config)
    assert (await list_servers(root))["web"]["error"] == ""
    assert "echo" in (await list_servers(root))["web"]["tools"]
    chat = await world.chat(
        alice,
        f"use {transport}",
        Call("mcp_web_echo", {"message": "hello over http"}),
        Call("mcp_web_get-tiny-image"),
        Call("mcp_web_get-structured-content", {"location": "New York"}),
    )
    assert "hello over http" in find_called(chat, "mcp_web_echo")["content"]["result"]
    assert "[image/png, " in find_called(chat, "mcp_web_get-tiny-image")["content"]["result"]
    data(await root.client.post("/api/app-config/mcp-servers/web/delete"))


async def test_secrets_are_in_no_response_no_log_and_no_row(
    world: ToolsWorld, root: Person, streamable: ToolServer
) -> None:
    url = f"{streamable.url}/mcp?key={SECRET}"
    await put(
        root,
        web={"url": url, "headers": {"X-Key": SECRET}},
        broken=stdio("python3", "-c", f"import sys; sys.exit('{SECRET}')", TOKEN=SECRET),
        away={"url": f"http://127.0.0.1:1/mcp?key={SECRET}", "headers": {"X-Key": SECRET}},
        wrong={"transport": "sse", "url": f"{streamable.url}/nothing?key={SECRET}"},
    )
    servers = await list_servers(root)
    assert all(servers[name]["error"] for name in ("broken", "away", "wrong"))
    response = await root.client.get("/api/app-config/mcp-servers")
    assert SECRET not in response.text
    assert SECRET not in (await root.client.get("/api/user/tools/mcp")).text
    engine = create_engine(world.platform.database_url)
    async with engine.connect() as connection:
        rows = (await connection.execute(text("SELECT t.*, sealed::text FROM mcp_servers t"))).all()
    await engine.dispose()
    assert rows
    assert SECRET not in str(rows)
    for process in world.platform.processes:
        assert SECRET not in process.log()
    async with client_for(world.url) as anonymous:
        body = data(await anonymous.get("/api/app-config/mcp-servers"))
        assert [server["error"] for server in body["mcp_servers"]] == [""] * 4, "only admins see errors"
    for name in ("web", "broken", "away", "wrong"):
        data(await root.client.post(f"/api/app-config/mcp-servers/{name}/delete"))


async def test_posting_a_server_again_replaces_it_and_keeps_the_others(root: Person, streamable: ToolServer) -> None:
    await put(root, one={"url": f"{streamable.url}/mcp"}, two={"url": f"{streamable.url}/mcp", "enabled": False})
    await put(root, one=stdio("no-such-program"))
    servers = await list_servers(root)
    assert (servers["one"]["transport"], servers["one"]["tools"]) == ("stdio", [])
    assert "no-such-program" in servers["one"]["error"]
    assert (servers["two"]["enabled"], servers["two"]["tools"]) == (False, [])
    data(await root.client.post("/api/app-config/mcp-servers/two/enabled", json={"enabled": True}))
    assert "echo" in (await list_servers(root))["two"]["tools"]
    for name in ("one", "two"):
        data(await root.client.post(f"/api/app-config/mcp-servers/{name}/delete"))


REPEATS = """
import json, os
message = "x" * int(os.environ["BEFORE"]) + " " + os.environ["SAYS"]
while True:
    request = json.loads(input())
    print(json.dumps({"jsonrpc": "2.0", "id": request.get("id"), "error": {"code": 5, "message": message}}), flush=True)
"""


@pytest.mark.parametrize("before", [0, 260], ids=["whole", "where the text is cut"])
async def test_a_secret_that_a_server_repeats_is_removed_from_its_error(root: Person, before: int) -> None:
    """The server may repeat only the key, and spaces that the error text joins to one."""
    env = {"BEFORE": str(before), "TOKEN": "sk-two  blanks", "SAYS": "sk-two  blanks " * 3}
    await put(root, parrot=stdio("python3", "-c", REPEATS, **env))
    error = (await list_servers(root))["parrot"]["error"]
    assert error.startswith("The server said: ")
    assert "sk-" not in error
    data(await root.client.post("/api/app-config/mcp-servers/parrot/delete"))


def test_the_secrets_of_a_server_are_its_keys_variables_and_query_values() -> None:
    connection = {
        "url": "https://mcp.example/mcp?key=in-the-query&n=1",
        "headers": {"Authorization": "Bearer the-key-alone", "X": "abc"},
        "env": {"A": "the-variable"},
    }
    secrets = McpServer("s", "sse", connection).secrets()
    assert secrets[0] == "Bearer the-key-alone"
    assert set(secrets[1:]) == {"the-key-alone", "in-the-query", "the-variable"}


BAD = {
    "no url": {"transport": "sse"},
    "no url by default": {},
    "no command": {"transport": "stdio", "url": "http://127.0.0.1/"},
    "an unknown transport": {"transport": "carrier-pigeon", "url": "http://127.0.0.1/"},
    "a name of a variable": {"transport": "stdio", "command": "x", "env": {"A=B": "c"}},
    "a NUL": {"transport": "stdio", "command": "x", "env": {"A": "c\x00"}},
    "a header on two lines": {"url": "http://127.0.0.1/", "headers": {"X": "a\r\nHost: b"}},
    "too many arguments": {"transport": "stdio", "command": "x", "args": ["a"] * 101},
}


@pytest.mark.parametrize("config", BAD.values(), ids=BAD.keys())
async def test_an_invalid_configuration_is_refused(root: Person, config: dict[str, Any]) -> None:
    response = await root.client.post("/api/app-config/mcp-servers", json={"mcpServers": {"bad": config}})
    assert (response.status_code, response.json()["code"]) == (422, 422)
    assert "bad" not in await list_servers(root)


@pytest.mark.parametrize("name", ["", "a/b", "..", " a", "x" * 65, "a\nb"])
async def test_a_name_that_cannot_be_a_path_segment_is_refused(root: Person, name: str) -> None:
    body = {"mcpServers": {name: {"url": "http://127.0.0.1/"}}}
    assert (await root.client.post("/api/app-config/mcp-servers", json=body)).status_code == 422


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/mcp", "file:///etc/passwd", "http://a@b/", "http://[::ffff:a9fe:a9fe]/"]
)
async def test_a_forbidden_url_is_refused_and_nothing_is_stored(root: Person, url: str) -> None:
    body = {"mcpServers": {"good": {"url": "http://127.0.0.1:1/"}, "evil": {"url": url}}}
    response = await root.client.post("/api/app-config/mcp-servers", json=body)
    assert (response.status_code, response.json()["data"]["error"]) == (400, "outbound_refused")
    assert await list_servers(root) == {}


async def test_only_admins_change_servers_and_unknown_servers_are_not_found(root: Person, alice: Person) -> None:
    body = {"mcpServers": {"x": {"url": "http://127.0.0.1:1/"}}}
    assert (await alice.client.post("/api/app-config/mcp-servers", json=body)).status_code == 403
    for path, extra in (("delete", {}), ("enabled", {"enabled": True}), ("refresh", {})):
        assert (await alice.client.post(f"/api/app-config/mcp-servers/x/{path}", json=extra)).status_code == 403
        for name in ("x", "%00", "%ff", "x" * 5000):
            answer = await root.client.post(f"/api/app-config/mcp-servers/{name}/{path}", json=extra)
            assert (answer.status_code, answer.json()["data"]) == (404, {"error": "not_found"})
    alice.client.headers.pop("Authorization")
    assert (await alice.client.get("/api/app-config/mcp-servers")).status_code == 200
    assert (await alice.client.post("/api/app-config/mcp-servers", json=body)).status_code == 401


async def test_a_server_that_does_not_answer_delays_neither_the_list_nor_a_run(
    world: ToolsWorld, root: Person, alice: Person, streamable: ToolServer
) -> None:
    hangs = socket.create_server(("127.0.0.1", 0))  # the kernel accepts the connection, but nothing answers
    port = hangs.getsockname()[1]
    await put(root, alive={"url": f"{streamable.url}/mcp"}, dead={"url": f"http://127.0.0.1:{port}/mcp"})
    servers = await list_servers(root)
    assert (servers["dead"]["tools"], servers["dead"]["error"]) == ([], "The server did not answer in time")
    await world.chat(alice, "with a dead server", Call("mcp_alive_echo", {"message": "x"}))
    offered = world.offered_functions("with a dead server")
    assert "mcp_alive_echo" in offered
    assert not [name for name in offered if name.startswith("mcp_dead")]
    hangs.close()
    for name in ("alive", "dead"):
        data(await root.client.post(f"/api/app-config/mcp-servers/{name}/delete"))


async def test_a_server_that_a_user_or_an_admin_switched_off_is_not_offered(
    world: ToolsWorld, root: Person, alice: Person, streamable: ToolServer
) -> None:
    await put(root, web={"url": f"{streamable.url}/mcp", "description": "Everything"})
    (tool,) = data(await alice.client.get("/api/user/tools/mcp"))["tools"]
    assert tool == {
        "tool_id": "web",
        "tool_name": "web",
        "description": "Everything",
        "enabled_global": True,
        "enabled_user": True,
    }
    data(await alice.client.post("/api/user/tools/mcp/web/enabled", json={"enabled": False}))
    assert data(await alice.client.get("/api/user/tools/mcp"))["tools"][0]["enabled_user"] is False
    assert data(await root.client.get("/api/user/tools/mcp"))["tools"][0]["enabled_user"] is True
    await world.chat(alice, "without web tools", Call("search_web", {"query": "x"}))
    assert not [name for name in world.offered_functions("without web tools") if name.startswith("mcp_")]
    data(await alice.client.post("/api/user/tools/mcp/web/enabled", json={"enabled": True}))
    data(await root.client.post("/api/app-config/mcp-servers/web/enabled", json={"enabled": False}))
    (tool,) = data(await alice.client.get("/api/user/tools/mcp"))["tools"]
    assert (tool["enabled_global"], tool["enabled_user"]) == (False, True)
    await world.chat(alice, "off for everyone", Call("search_web", {"query": "x"}))
    assert not [name for name in world.offered_functions("off for everyone") if name.startswith("mcp_")]
    for name in ("none", "no%00ne"):
        answer = await alice.client.post(f"/api/user/tools/mcp/{name}/enabled", json={"enabled": True})
        assert answer.status_code == 404
    data(await root.client.post("/api/app-config/mcp-servers/web/delete"))
    assert data(await alice.client.get("/api/user/tools/mcp")) == {"tools": []}


async def test_the_result_of_a_refused_call_is_the_servers_error(
    world: ToolsWorld, root: Person, alice: Person, streamable: ToolServer
) -> None:
    await put(root, web={"url": f"{streamable.url}/mcp"})
    chat = await world.chat(
        alice, "a wrong call", Call("mcp_web_gzip-file-as-resource", {"data": "file:///etc/passwd"})
    )
    error = find_called(chat, "mcp_web_gzip-file-as-resource")["content"]["result"]
    assert "file:" in error or "protocol" in error.lower(), error
    data(await root.client.post("/api/app-config/mcp-servers/web/delete"))
