"""MCP calls that are lost, slow, too large or cancelled, against a server that logs the calls it has got."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from mcp_types import Tool

from moorage_api.agent.ports import ToolCall, ToolResult
from moorage_api.agent.toolsets.arguments import check_arguments
from moorage_api.agent.trial import orange_square
from moorage_api.config.sealing import Sealing
from moorage_api.database import create_database, create_engine
from moorage_api.outbound import Outbound
from moorage_api.tools.mcp.pool import McpConnections
from moorage_api.tools.mcp.server import McpLostError, McpRunnerAddress, McpServer, McpUnavailableError
from moorage_api.tools.mcp.service import McpService, OfferedServer, to_stored_tool
from moorage_api.tools.mcp.toolset import McpToolset, function_name
from moorage_local.data.ports import free_ports
from support.accounts import admin, data, register
from support.agent import MemoryAttachments, MemorySwitches
from support.llm import Call, Finish, Plan, Say, ScriptedModel, Turn
from support.processes import Platform
from support.remote_tools import ROOT, running
from support.sse import Chat
from support.waiting import HANG_SECONDS
from support.world import find_called

TOKEN = "a token that has more than thirty-two characters"


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[McpRunnerAddress]:
    """`moorage mcp-runner`, as on a cluster, with an environment variable that no command may see."""
    file = tmp_path_factory.mktemp("runner") / "token"
    file.write_text(TOKEN)
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "moorage_sandbox.mcp_runner", "--port", str(port), "--token-file", str(file)]
    with running(command, port, PLATFORM_SECRET="s3cret"):
        yield McpRunnerAddress(f"tcp://127.0.0.1:{port}", TOKEN)


@pytest.fixture
async def connections(commands: McpRunnerAddress) -> AsyncIterator[McpConnections]:
    made = McpConnections(outbound=Outbound(), commands=commands)
    yield made
    await made.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "calls.log"


@pytest.fixture
def server(log: Path) -> McpServer:
    command = {"command": sys.executable, "args": ["-m", "support.counting_mcp", str(log)]}
    return McpServer("counting", "stdio", {**command, "env": {"PYTHONPATH": str(ROOT / "tests")}})


Tools = Callable[..., Coroutine[Any, Any, ToolResult]]


@pytest.fixture
async def tools(connections: McpConnections, server: McpServer) -> AsyncIterator[Tools]:
    """A function that calls a tool as the agent does."""
    engine = create_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")  # a call needs no database
    service = McpService(create_database(engine), Sealing(["k" * 32]), connections, Outbound())
    offered = OfferedServer(
        "counting", [to_stored_tool(tool) for tool in await connections.connection(KEY, server).tools()], server, KEY
    )
    toolset = McpToolset(service, [offered], MemoryAttachments(), MemorySwitches())

    async def call(tool: str, **args: Any) -> ToolResult:
        return await toolset.call(ToolCall("1", "call-1", f"mcp_counting_{tool}", args))

    yield call
    await engine.dispose()


KEY = ("counting", "digest", "somebody")


async def wait_until_logged(log: Path, count: int) -> list[str]:
    async with asyncio.timeout(HANG_SECONDS):
        while not log.exists() or len(log.read_text().splitlines()) < count:
            await asyncio.sleep(0.01)
    return log.read_text().splitlines()


def kill(line: str) -> None:
    os.kill(int(line.split()[0]), signal.SIGKILL)


async def test_a_lost_call_has_an_unknown_outcome_and_is_not_repeated(tools: Tools, log: Path) -> None:
    calling = asyncio.create_task(tools("act", seconds=60))
    kill((await wait_until_logged(log, 1))[0])
    result = await calling
    assert result.outcome == "unknown"
    assert "Outcome unknown" in result.text
    assert (await tools("names")).outcome == "succeeded", "the next call has a connection of its own"
    assert [line.split()[1] for line in log.read_text().splitlines()] == ["act"]


async def test_a_lost_call_of_a_read_only_tool_is_repeated_once(tools: Tools, log: Path) -> None:
    calling = asyncio.create_task(tools("look", seconds=60))
    first = (await wait_until_logged(log, 1))[0]
    kill(first)
    result = await calling
    assert result.outcome == "succeeded"
    lines = log.read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["look", "look"]
    assert lines[1].split()[0] != lines[0].split()[0]


async def test_a_timeout_leaves_the_outcome_unknown_and_the_connection_open(
    connections: McpConnections, server: McpServer, log: Path
) -> None:
    connection = connections.connection(KEY, server)
    with pytest.raises(McpLostError, match="in time"):
        await connection.call("act", {"seconds": 60}, seconds=0.2)
    assert connection.is_usable
    assert await connection.call("act", {}, seconds=HANG_SECONDS)


async def test_calls_run_concurrently_and_a_cancelled_call_does_not_delay_the_close(
    connections: McpConnections, server: McpServer, log: Path
) -> None:
    connection = connections.connection(KEY, server)
    slow = asyncio.create_task(connection.call("act", {"seconds": 60}, seconds=60))
    await wait_until_logged(log, 1)
    assert await connection.call("act", {}, seconds=HANG_SECONDS)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    async with asyncio.timeout(HANG_SECONDS):
        await connections.close()


async def test_a_response_that_is_too_long_leaves_the_outcome_unknown(tools: Tools) -> None:
    assert (await tools("much", count=6_000_000)).outcome == "unknown"
    long = await tools("much", count=200_000)
    assert long.outcome == "succeeded"
    assert len(long.text) >= 200_000, "the executor shortens it, after it has kept the whole as a file"
    assert long.content["key"] == "blob0.txt"


PNG = orange_square()


async def test_the_pictures_of_a_result_are_stored_for_the_model(tools: Tools) -> None:
    drawn = await tools("draw", data=base64.b64encode(PNG).decode())
    assert drawn.outcome == "succeeded"
    (picture,) = drawn.pictures
    assert (picture.media_type, picture.width, picture.height) == ("image/png", 64, 64)
    assert drawn.text == drawn.content["result"]
    assert drawn.text.startswith("[image/png, ")


@pytest.mark.parametrize(
    ("data", "count", "shown", "words"),
    [
        (base64.b64encode(b"<svg/>").decode(), 1, 0, "is not a PNG"),
        ("no base64!", 1, 0, "is not a PNG"),
        ("", 1, 0, "is not a PNG"),
        (base64.b64encode(PNG).decode(), 7, 4, "3 more pictures are not shown"),
    ],
    ids=["SVG", "no base64", "empty", "too many"],
)
async def test_pictures_that_the_model_cannot_get_are_named_in_words(
    tools: Tools, data: str, count: int, shown: int, words: str
) -> None:
    drawn = await tools("draw", data=data, count=count)
    assert drawn.outcome == "succeeded"
    assert len(drawn.pictures) == shown
    assert words in drawn.text


async def test_a_command_sees_only_its_own_environment_variables(tools: Tools) -> None:
    text = (await tools("names")).text
    assert "PYTHONPATH" in text
    assert "PLATFORM_SECRET" not in text
    assert "MOORAGE" not in text


async def test_a_client_with_a_wrong_token_cannot_run_commands(commands: McpRunnerAddress, server: McpServer) -> None:
    made = McpConnections(outbound=Outbound(), commands=McpRunnerAddress(commands.url, "wrong"))
    with pytest.raises(McpUnavailableError, match="token is wrong"):
        await made.connection(KEY, server).tools()
    await made.close()


async def test_closing_a_connection_ends_its_process(connections: McpConnections, server: McpServer, log: Path) -> None:
    await connections.connection(KEY, server).call("act", {}, seconds=HANG_SECONDS)
    process = psutil.Process(int((await wait_until_logged(log, 1))[0].split()[0]))
    await connections.close()
    await asyncio.to_thread(process.wait, HANG_SECONDS)


async def test_a_restarted_server_gets_a_new_connection(log: Path, commands: McpRunnerAddress) -> None:
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "support.counting_mcp", str(log), "--port", str(port)]
    made = McpConnections(outbound=Outbound(), commands=commands)
    there = McpServer("web", "streamable_http", {"url": f"http://127.0.0.1:{port}/mcp", "headers": {}})
    engine = create_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    service = McpService(create_database(engine), Sealing(["k" * 32]), made, Outbound())
    offered = OfferedServer("web", [], there, KEY)
    with running(command, port, PYTHONPATH=str(ROOT / "tests")) as process:
        assert await service.call(offered, "act", {}, seconds=HANG_SECONDS)
        lost = asyncio.create_task(service.call(offered, "act", {"seconds": 60}, seconds=HANG_SECONDS))
        await wait_until_logged(log, 2)
        process.kill()
        with pytest.raises(McpLostError):
            await lost
        process.start()
        assert await service.call(offered, "act", {}, seconds=HANG_SECONDS)
    assert len(log.read_text().splitlines()) == 3
    await made.close()


NAMES = {
    "plain": (("time", "now"), "mcp_time_now"),
    "dashes": (("my-server", "get-sum"), "mcp_my-server_get-sum"),
}


@pytest.mark.parametrize(("parts", "name"), NAMES.values(), ids=NAMES.keys())
def test_a_function_is_named_after_server_and_tool(parts: tuple[str, str], name: str) -> None:
    assert function_name("mcp", *parts) == name


@pytest.mark.parametrize("parts", [("a" * 40, "b" * 40), ("server of mine", "now"), ("zeit", "jetzt-für-mich")])
def test_a_name_that_models_do_not_accept_is_changed_and_gets_a_hash(parts: tuple[str, str]) -> None:
    name = function_name("mcp", *parts)
    assert len(name) <= 64
    assert name.isascii()
    assert " " not in name
    assert name != function_name("mcp", parts[0], parts[1] + "x")
    assert name == function_name("mcp", *parts)


def test_function_names_are_unique_and_servers_take_turns() -> None:
    hashed = function_name("mcp", "a_b", "c", taken=["mcp_a_b_c"])
    tools = {
        "a": ["b_c", "b_c", hashed.removeprefix("mcp_a_"), "d" * 70 + "1", "d" * 70 + "2"],
        "a_b": ["c"],
        "z": [f"tool{number}" for number in range(500)],
    }
    offered = [
        OfferedServer(
            name,
            [{"name": tool, "description": "", "schema": ANYTHING, "read_only": False} for tool in names],
            McpServer(name, "stdio", {}),
            (name, "", ""),
        )
        for name, names in tools.items()
    ]
    engine = create_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")  # none of these is called
    service = McpService(
        create_database(engine),
        Sealing(["k" * 32]),
        McpConnections(outbound=Outbound(), commands=McpRunnerAddress("", "")),
        Outbound(),
    )
    toolset = McpToolset(service, offered, MemoryAttachments(), MemorySwitches())
    names = [function.name for function in toolset.functions()]
    assert len(names) == len(set(names)) == 4 + 1 + 500, "a tool that is listed twice counts once"
    assert max(map(len, names)) <= 64
    assert names[:4] == ["mcp_a_b_c", toolset.name_of("a_b", "c"), "mcp_z_tool0", toolset.name_of("a", tools["a"][2])]
    assert {toolset.name_of("a_b", "c"), toolset.name_of("a", tools["a"][2])} != {hashed}


ANYTHING = {"type": "object", "properties": {}}
SCHEMAS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "usual": (
        {"$schema": "x", "type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    ),
    "nothing": ({}, ANYTHING),
    "another type": ({"type": "array"}, ANYTHING),
    "invalid properties": ({"type": "object", "properties": ["a"]}, ANYTHING),
    "an invalid property": ({"type": "object", "properties": {"a": "string"}}, ANYTHING),
    "an invalid enum": ({"type": "object", "properties": {"a": {"enum": 5}}}, ANYTHING),
    "an invalid required": ({"type": "object", "properties": {}, "required": "a"}, ANYTHING),
    "a NUL": ({"type": "object", "properties": {}, "description": "\x00"}, ANYTHING),
    "too large": ({"type": "object", "properties": {}, "description": "x" * 20_000}, ANYTHING),
}


@pytest.mark.parametrize(("schema", "offered"), SCHEMAS.values(), ids=SCHEMAS.keys())
def test_an_invalid_schema_is_replaced_by_one_that_accepts_anything(
    schema: dict[str, Any], offered: dict[str, Any]
) -> None:
    tool = to_stored_tool(Tool(name="t\x00", description="d\x00", input_schema=schema))
    assert tool == {"name": "t", "description": "d", "schema": offered, "read_only": False}
    assert check_arguments(tool["schema"], {"a": "x"}) == {"a": "x"}


async def test_a_call_of_a_killed_runner_runs_once_and_has_an_unknown_outcome(platform: Platform, log: Path) -> None:
    turns: list[Turn] = [
        Plan("Task", "I will.", ["Do it"]),
        Call("mcp_counting_act", {"seconds": 60}),
        Finish("?"),
        Say("Over."),
    ]
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "support.counting_mcp", str(log), "--port", str(port)]
    with ScriptedModel(turns) as model, running(command, port, PYTHONPATH=str(ROOT / "tests")):
        platform.changes.update(llm_base_url=model.url, llm_model="m", llm_api_key="k")
        api = await platform.start_api()
        first = await platform.start_runner()
        async with await admin(api.url, platform.database_url) as root, await register(api.url) as alice:
            config = {"mcpServers": {"counting": {"url": f"http://127.0.0.1:{port}/mcp"}}}
            data(await root.client.post("/api/app-config/mcp-servers", json=config))
            chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
            saying = asyncio.create_task(chat.say("go"))
            await wait_until_logged(log, 1)
            await first.kill()
            await platform.start_runner()
            assert (await saying).event == "done"
    assert find_called(chat, "mcp_counting_act")["status"] == "called"
    (result,) = [one for one in model.requests[-1]["messages"] if "Outcome unknown" in str(one["content"])][-1:]
    assert result["role"] == "tool"
    assert len(log.read_text().splitlines()) == 1


def test_the_runner_refuses_a_token_that_can_be_guessed(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("short")
    command = [sys.executable, "-m", "moorage_sandbox.mcp_runner", "--token-file", str(tmp_path / "token")]
    reply = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert reply.returncode != 0
    assert "32" in reply.stderr


def test_the_health_check_fails_for_a_runner_that_hangs(commands: McpRunnerAddress) -> None:
    port = str(urlsplit(commands.url).port)
    probe = [sys.executable, "-m", "moorage_sandbox.mcp_runner", "--check", "--port", port]
    (runner,) = [one for one in psutil.Process().children(recursive=True) if is_runner(one, port)]
    assert subprocess.run(probe, timeout=HANG_SECONDS, check=False).returncode == 0
    runner.suspend()
    try:
        hanging = subprocess.run(probe, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    finally:
        runner.resume()
    assert (hanging.returncode, hanging.stderr) == (1, f"No runner answers at port {port}\n")


def is_runner(process: psutil.Process, port: str) -> bool:
    return "moorage_sandbox.mcp_runner" in process.cmdline() and port in process.cmdline()
