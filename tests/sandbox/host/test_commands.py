"""Stdio MCP servers on this machine run, cannot see the platform, and end with their connection."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
import pytest

from moorage_sandbox.host.main import check_command_paths
from moorage_sandbox.host.sandboxes.layout import LayoutError
from moorage_sandbox.host.settings import HostSettings
from moorage_sandbox.mcp_commands import McpCommand, McpCommandError, open_command
from support.sandbox_host import SandboxHost
from support.waiting import block_until

LOOK = """
import json, os, socket
def reach(host, port):
    try:
        socket.create_connection((host, port), 2).close()
        return True
    except OSError:
        return False
seen = {
    "asked": input(),
    "secret": os.environ.get("SECRET"),
    "names": sorted(os.environ),
    "arguments": [open(f"/proc/{pid}/cmdline").read() for pid in os.listdir("/proc") if pid.isdigit()],
    "home": os.listdir("/home/ubuntu"),
    "root": sorted(os.listdir("/")),
    "ports": [port for port in %(ports)s if reach("127.0.0.1", port) or reach("10.0.2.2", port)],
    "exists": [path for path in %(paths)s if os.path.exists(path)],
    "user": [os.getuid(), os.getgid()],
    "writable": os.access("/usr/bin", os.W_OK),
}
open("/home/ubuntu/left", "w").write("x")
print(json.dumps(seen), flush=True)
"""


async def look(host: SandboxHost, *, ports: list[int], paths: list[str]) -> dict[str, object]:
    url = f"unix:{host.socket.with_name('commands.sock')}"
    command = McpCommand(["python3", "-c", LOOK % {"ports": ports, "paths": paths}], {"SECRET": "s3cret"})
    async with open_command(url, command) as (reader, writer):
        writer.write(b"hello\n")
        answer: dict[str, object] = json.loads(await reader.readline())
    return answer


async def test_a_command_answers_and_sees_nothing_of_the_platform(shared_host: SandboxHost) -> None:
    made = shared_host.put()
    gate_port = int(made.url.rpartition(":")[2])
    paths = [str(shared_host.directory), str(shared_host.socket), "/root", "/etc/shadow", "/run/docker.sock"]
    seen = await look(shared_host, ports=[gate_port], paths=paths)
    assert seen["asked"] == "hello"
    assert seen["secret"] == "s3cret"
    assert not any("s3cret" in line for line in seen["arguments"])  # type: ignore[attr-defined]
    assert not [name for name in seen["names"] if name.startswith("MOORAGE")]  # type: ignore[attr-defined]
    assert (seen["home"], seen["ports"], seen["exists"], seen["writable"]) == ([], [], [], False)
    assert seen["user"] == [1000, 1000]
    assert (await look(shared_host, ports=[], paths=[]))["home"] == [], "the next command has an empty home"


async def test_a_secret_is_in_no_argument_list_of_the_machine(shared_host: SandboxHost) -> None:
    async with open_command(
        f"unix:{shared_host.socket.with_name('commands.sock')}", McpCommand(["cat"], {"TOKEN": "very-s3cret-token"})
    ) as (reader, writer):
        writer.write(b"x\n")
        assert await reader.readline() == b"x\n"
        assert not [one for one in psutil.process_iter(["cmdline"]) if "very-s3cret" in str(one.info["cmdline"])]


async def test_a_command_ends_with_its_connection(shared_host: SandboxHost) -> None:
    mark = f"sleep {os.getpid()}9999"
    script = f"trap '' TERM; exec 0</dev/null; {mark} & until pgrep sleep >/dev/null; do :; done; echo ready; wait"
    url = f"unix:{shared_host.socket.with_name('commands.sock')}"
    async with open_command(url, McpCommand(["bash", "-c", script])) as (reader, _):
        assert await reader.readline() == b"ready\n"
        assert [one for one in psutil.process_iter(["cmdline"]) if mark == " ".join(one.info["cmdline"] or [])]
    block_until(
        lambda: not [one for one in psutil.process_iter(["cmdline"]) if mark == " ".join(one.info["cmdline"] or [])],
        "the command and its children have ended",
    )


async def test_the_connection_ends_with_the_command(shared_host: SandboxHost) -> None:
    url = f"unix:{shared_host.socket.with_name('commands.sock')}"
    async with open_command(url, McpCommand(["bash", "-c", "echo bye"])) as (reader, _):
        assert await reader.read() == b"bye\n"


@pytest.mark.parametrize("below", ["", "host", "host/sandboxes"], ids=["above", "itself", "below"])
def test_a_directory_with_the_platforms_data_is_refused(tmp_path: Path, below: str) -> None:
    settings = HostSettings(
        socket=tmp_path / "run" / "host.sock",
        data_dir=tmp_path / "host",
        trust_file=tmp_path / "trust.json",
        command_paths=(tmp_path / below,),
    )
    (tmp_path / "host" / "sandboxes").mkdir(parents=True)
    with pytest.raises(LayoutError, match="platform's own data"):
        check_command_paths(settings)


def test_a_missing_directory_is_an_error_at_the_start(tmp_path: Path) -> None:
    settings = HostSettings(
        tmp_path / "host.sock", tmp_path / "host", tmp_path / "t", command_paths=(tmp_path / "none",)
    )
    with pytest.raises(LayoutError, match="is not a directory"):
        check_command_paths(settings)


@pytest.mark.parametrize("argv", [["no-such-program"], ["/root/secret/program"], [""]], ids=["none", "hidden", "empty"])
async def test_a_missing_program_is_an_error_that_names_it(shared_host: SandboxHost, argv: list[str]) -> None:
    url = f"unix:{shared_host.socket.with_name('commands.sock')}"
    with pytest.raises(McpCommandError, match="is not installed"):
        async with open_command(url, McpCommand(argv, {"TOKEN": "s3cret"})):
            raise AssertionError("it was started")
