"""Third-party MCP servers and A2A agents as processes. The first use installs them with `.ci/mcp-servers`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from moorage_local.data.ports import free_ports
from support import toolchains
from support.waiting import HANG_SECONDS

ROOT = Path(__file__).parents[2]
INSTALL_SECONDS = 500


@cache
def mcp_servers() -> Path:
    """The directory that holds `python/bin` and `node/node_modules/.bin`."""
    toolchains.put_on_path()
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    reply = subprocess.run(
        [ROOT / ".ci" / "mcp-servers"], capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    if reply.returncode != 0:
        pytest.skip(f"the MCP servers could not be installed: {reply.stderr[-500:]}")
    return Path(reply.stdout.strip())


def command_paths() -> list[Path]:
    return [mcp_servers() / "python", mcp_servers() / "node"]


@dataclass
class ToolServer:
    """A process that listens on a port. It can be killed and started again on the same port."""

    command: Sequence[str]
    port: int
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + HANG_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError(f"{self.command[0]} does not answer")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def running(command: Sequence[str], port: int, **environment: str) -> Iterator[ToolServer]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    server = ToolServer(command, port, {**kept, **environment})
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def everything(transport: str) -> Iterator[ToolServer]:
    """`@modelcontextprotocol/server-everything` over "sse" (at /sse) or "streamableHttp" (at /mcp)."""
    port = free_ports(1)[0]
    script = mcp_servers() / "node" / "node_modules" / ".bin" / "mcp-server-everything"
    with running([str(script), transport], port, PORT=str(port)) as server:
        yield server


@contextmanager
def a2a_agent(*options: str) -> Iterator[ToolServer]:
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "support.a2a_agent", "--port", str(port), *options]
    with running(command, port, PYTHONPATH=str(ROOT / "tests")) as server:
        yield server
