"""Stdio MCP servers, started and called exactly as the chart configures it."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from moorage_api.outbound import Outbound
from moorage_api.tools.mcp.pool import McpConnections
from moorage_api.tools.mcp.server import McpRunnerAddress, McpServer
from moorage_local.data.ports import free_ports
from support.helm import Helm, containers, find_manifest
from support.remote_tools import running
from support.waiting import HANG_SECONDS

PLAIN = Path(__file__).parents[1] / "support" / "plain_mcp.py"


@pytest.mark.parametrize("helm", [4], indirect=True, ids=["helm4"])
async def test_an_mcp_server_runs_as_in_the_deployment_without_seeing_its_environment(
    helm: Helm, tmp_path: Path
) -> None:
    manifests = helm.render()
    (container,) = containers(find_manifest(manifests, "Deployment", "moorage-commands"))
    token = base64.b64decode(find_manifest(manifests, "Secret", "moorage-commands")["data"]["token"]).decode()
    url = find_manifest(manifests, "ConfigMap", "moorage-settings")["data"]["MOORAGE_MCP_COMMANDS_URL"]
    (tmp_path / "token").write_text(token)
    (mount,) = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "token"]
    port = free_ports(1)[0]
    places = {f"{mount}/token": str(tmp_path / "token"), str(urlsplit(url).port): str(port)}
    arguments = [places.get(argument, argument) for argument in container["args"]]
    with running([sys.executable, "-m", "moorage_sandbox.mcp_runner", *arguments], port, PLATFORM_SECRET="s3cret"):
        connections = McpConnections(outbound=Outbound(), commands=McpRunnerAddress(f"tcp://127.0.0.1:{port}", token))
        await connections.load()
        server = McpServer("plain", "stdio", {"command": sys.executable, "args": ["-c", PLAIN.read_text()], "env": {}})
        try:
            connection = connections.connection(("plain", "digest", "somebody"), server)
            assert [tool.name for tool in await connection.tools()] == ["variables"]
            variables = await connection.call("variables", {}, seconds=HANG_SECONDS)
        finally:
            await connections.close()
    assert "HOME" in str(variables)
    assert "PLATFORM_SECRET" not in str(variables)
