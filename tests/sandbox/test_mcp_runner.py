"""The runner of stdio MCP servers on a cluster, used over TCP as api and runner use it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage_local.data.ports import free_ports
from moorage_sandbox import mcp_commands
from moorage_sandbox.mcp_commands import McpCommand
from support.remote_tools import running
from support.waiting import until

TOKEN = "t" * 32
ESTABLISHED, KEEPALIVE = "01", "02"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "token").write_text(TOKEN)
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "moorage_sandbox.mcp_runner", "--port", str(port)]
    with running([*command, "--token-file", str(tmp_path / "token")], port):
        yield port


async def test_a_connection_whose_client_vanished_is_closed(port: int) -> None:
    """The connection is never closed. Without a check its command would use a slot and memory forever."""

    async def is_asked_for_life_signs() -> bool:
        return timers_of(port) == [KEEPALIVE]

    async with mcp_commands.open_command(f"tcp://127.0.0.1:{port}", McpCommand(["cat"]), token=TOKEN):
        await until(is_asked_for_life_signs, "the kernel asks the caller now and then")


@pytest.mark.parametrize(
    "request_line", [b"", b"[]", b'{"token": 1}', b'{"token": "\\ud800", "argv": ["id"], "env": {}}']
)
async def test_an_invalid_request_gets_an_error(port: int, request_line: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_line + b"\n")
    assert "error" in json.loads(await reader.readline())
    writer.close()
    await writer.wait_closed()


def timers_of(port: int) -> list[str]:
    """The timers of the kernel for connections to a port of this machine."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[5].split(":")[0] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == ESTABLISHED]
