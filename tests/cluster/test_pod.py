"""Gate, box and vnc as one pod under the restricted Pod Security Standard, on a real kubelet (make test-pod).

The pod is shared and its containers get killed, so each test waits for what it needs and leaves the pod working.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncvnc
import httpx
import pytest

from moorage_kube.client import Manifest
from moorage_sandbox.client import GateClient
from moorage_sandbox.messages import CallResponse
from moorage_sandbox.protocol import RUNNER_SCOPES, GateError, Scope
from support.kube.node import Node
from support.kube.sandbox_pod import CONTAINERS, SandboxPod, container_of, dry_run, find_named, manifests, status_of
from support.screen import picture, rfb_client, share_of

pytestmark = [pytest.mark.node, pytest.mark.timeout(60 * 60)]

KEYS = itertools.count(1)
WORKSPACE = "/home/ubuntu/workspace"
RED, BLUE = (255, 0, 0), (0, 0, 255)


async def run(client: GateClient, function: str, timeout_seconds: float = 60, **args: Any) -> CallResponse:
    return await client.call(str(next(KEYS)), function, args, timeout_seconds=timeout_seconds)


async def shell(client: GateClient, command: str, *, name: str = "main") -> str:
    """The output of `command`, whatever its exit code."""
    answer = await run(client, "shell_execute", session_id=name, exec_dir=WORKSPACE, command=command)
    assert (answer.outcome, answer.result.get("status")) == ("succeeded", "exited"), answer
    return str(answer.result["output"]).strip()


def screen(client: GateClient) -> AbstractAsyncContextManager[asyncvnc.Client]:
    """The WebSocket of the gate, opened as the api opens it for a browser."""
    return rfb_client(client.vnc_url(), client.headers(Scope.VNC))


async def share_on_screen(client: GateClient, color: tuple[int, int, int], *, seconds: float = 30) -> float:
    """Wait until `color` covers most of the screen. Returns the share that it covers at the end."""
    share = 0.0
    async with screen(client) as viewer:
        deadline = asyncio.get_running_loop().time() + seconds
        while share < 0.5 and asyncio.get_running_loop().time() < deadline:
            share = share_of(await picture(viewer), color)
    return share


async def open_page(client: GateClient, color: tuple[int, int, int]) -> CallResponse:
    page = f"{WORKSPACE}/page.html"
    content = f"<title>Page</title><body style='margin:0;background:rgb{color}'><h1>Seen</h1></body>"
    written = await run(client, "write_file", filepath=page, content=content)
    assert written.outcome == "succeeded", written
    return await run(client, "browser_navigate", url=f"file://{page}")


# --- the pod runs


async def test_the_pod_is_accepted_and_becomes_ready(node: Node, sandbox: SandboxPod) -> None:
    pod = node.pod(sandbox.namespace, sandbox.name)
    assert [status_of(pod, name)["ready"] for name in CONTAINERS] == [True, True, True]
    assert dry_run(node, find_named(manifests()[1], "another")) == ""


async def test_a_command_runs_as_the_user_of_the_box_without_any_privilege(client: GateClient) -> None:
    assert await shell(client, "id -u; id -g; pwd; echo $HOME") == f"10002\n10000\n{WORKSPACE}\n/home/ubuntu"
    status = await shell(client, "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status")
    assert dict(line.split() for line in status.splitlines()) == {
        "CapEff:": "0000000000000000",
        "CapBnd:": "0000000000000000",
        "NoNewPrivs:": "1",
        "Seccomp:": "2",
    }
    assert "Read-only file system" in await shell(client, "touch /usr/bin/mine; touch /etc/mine")
    assert "Operation not permitted" in await shell(client, "unshare --user true; setpriv --reuid 0 true")


async def test_python_node_and_git_work_in_the_workspace(client: GateClient) -> None:
    assert await shell(client, "python3 -c 'import pandas, matplotlib.pyplot; print(6 * 7)'") == "42"
    assert await shell(client, "node -e 'console.log(6 * 7)'") == "42"
    assert await shell(client, "git init -q repo && git -C repo status --short && echo clean") == "clean"
    assert await shell(client, "stat -c %U /home/ubuntu && chmod 700 /home/ubuntu") == "ubuntu"


async def test_a_file_can_be_written_and_read(client: GateClient) -> None:
    content = bytes(range(256)) * 4096

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 65536):
            yield content[start : start + 65536]

    await client.write_file(f"{WORKSPACE}/data.bin", chunks(), size=len(content))
    assert await shell(client, "stat -c '%u %s' data.bin") == f"10002 {len(content)}"
    async with client.read_file(f"{WORKSPACE}/data.bin") as file:
        assert b"".join([chunk async for chunk in file.chunks]) == content


async def test_the_picture_shows_the_page_that_the_browser_opened(client: GateClient) -> None:
    opened = await open_page(client, RED)
    assert (opened.outcome, opened.result.get("title")) == ("succeeded", "Page"), opened.error
    assert await share_on_screen(client, RED) > 0.5


# --- what the box cannot reach


@pytest.mark.parametrize(
    ("container", "path"),
    [
        ("gate", "/var/lib/moorage/ledger.db"),
        ("gate", "/etc/moorage/trust/trust.json"),
        ("gate", "/run/moorage/vnc/rfb.sock"),
        ("vnc", "/run/moorage/vnc/rfb.sock"),
    ],
)
async def test_the_box_does_not_see_what_another_container_has(
    sandbox: SandboxPod, client: GateClient, container: str, path: str
) -> None:
    assert sandbox.run_in(container, "ls", path).strip() == path
    assert "No such file or directory" in await shell(client, f"ls {path}")


async def test_the_box_sees_neither_processes_nor_environment_of_the_gate(
    sandbox: SandboxPod, client: GateClient
) -> None:
    assert f"MOORAGE_SANDBOX_UID={sandbox.uid}" in sandbox.run_in("gate", "env").splitlines()
    seen = await shell(client, "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert "moorage_sandbox.box" in seen
    assert not [word for word in ("moorage_sandbox.gate", "Xtigervnc", "pause", sandbox.uid) if word in seen]


async def test_a_command_does_not_see_the_address_of_the_api_server(client: GateClient) -> None:
    """The kubelet puts the address of the API server into every container, even without service links."""
    assert "KUBERNETES_SERVICE_HOST" in await shell(client, "tr '\\0' '\\n' < /proc/1/environ")
    assert "KUBERNETES" not in await shell(client, "env")


async def test_the_gate_refuses_a_request_without_a_token_from_the_box(client: GateClient) -> None:
    """The containers share one network, so the box can reach the port. Only a token grants access."""
    status = "curl -s -o /dev/null -w '%{http_code}' --noproxy '*' http://127.0.0.1:8080"
    assert await shell(client, f"{status}/healthz") == "200"
    assert await shell(client, f"{status}/v1/files?path=/etc/passwd") == "401"
    assert await shell(client, f"{status}/v1/bind -X POST -H 'Authorization: Bearer e30.e30.e30'") == "401"


@pytest.mark.parametrize("container", CONTAINERS)
async def test_no_container_has_a_service_account_token(sandbox: SandboxPod, container: str) -> None:
    mounts = sandbox.run_in(container, "cat", "/proc/mounts")
    assert " / " in mounts
    assert "serviceaccount" not in mounts


async def test_a_key_that_is_added_to_the_trust_file_is_trusted_without_a_restart(sandbox: SandboxPod) -> None:
    restarts = sandbox.status("gate")["restartCount"]
    async with sandbox.client(key="new") as newcomer:
        with pytest.raises(GateError, match="not signed with a key that this sandbox trusts"):
            await newcomer.bind()
        sandbox.keys.trust("new", RUNNER_SCOPES)
        sandbox.publish_trust()
        async with asyncio.timeout(120):
            while not await is_trusted(newcomer):
                await asyncio.sleep(0.2)
    assert sandbox.status("gate")["restartCount"] == restarts


async def is_trusted(client: GateClient) -> bool:
    try:
        await client.bind()
    except GateError as error:
        if error.code != "unauthorized":
            raise
        return False
    return True


# --- what the namespace refuses


def as_root(pod: Manifest) -> None:
    container_of(pod, "box")["securityContext"] |= {"runAsUser": 0, "runAsNonRoot": False}


def with_privilege_escalation(pod: Manifest) -> None:
    del container_of(pod, "gate")["securityContext"]["allowPrivilegeEscalation"]


def with_capabilities(pod: Manifest) -> None:
    container_of(pod, "vnc")["securityContext"]["capabilities"] = {"drop": ["ALL"], "add": ["SYS_PTRACE"]}


def without_seccomp(pod: Manifest) -> None:
    pod["spec"]["securityContext"]["seccompProfile"] = {"type": "Unconfined"}


def with_a_host_path(pod: Manifest) -> None:
    pod["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/"}})


def in_the_network_of_the_host(pod: Manifest) -> None:
    pod["spec"]["hostNetwork"] = True


@pytest.mark.parametrize(
    "change",
    [
        as_root,
        with_privilege_escalation,
        with_capabilities,
        without_seccomp,
        with_a_host_path,
        in_the_network_of_the_host,
    ],
)
def test_the_namespace_refuses_a_pod_with_more_rights(node: Node, sandbox: SandboxPod, change: Any) -> None:
    pod = find_named(manifests()[1], "another")
    assert dry_run(node, pod) == ""
    change(pod)
    assert 'violates PodSecurity "restricted' in dry_run(node, pod)


# --- what is lost with a killed container


async def test_a_killed_box_loses_its_call_in_flight_and_nothing_else(sandbox: SandboxPod, client: GateClient) -> None:
    key, command = str(next(KEYS)), "echo ran >> once.log; sleep 600"
    args = {"session_id": "doomed", "exec_dir": WORKSPACE, "command": command}
    booted = (await client.bind()).box_boot_id
    running = asyncio.create_task(client.call(key, "shell_execute", args, timeout_seconds=120))
    async with asyncio.timeout(30):
        while "ran" not in await shell(client, "cat once.log 2>/dev/null; true"):
            pass
    await asyncio.to_thread(sandbox.kill, "box")
    lost = await running
    assert (lost.outcome, lost.error and lost.error.code) == ("unknown", "unknown")
    assert await shell(client, "cat once.log") == "ran"
    assert (await client.bind()).box_boot_id != booted
    assert (await client.call(key, "shell_execute", args, timeout_seconds=120)) == lost


async def test_a_killed_gate_restarts_with_its_binding_and_its_ledger(sandbox: SandboxPod, client: GateClient) -> None:
    key = str(next(KEYS))
    args = {"session_id": "main", "exec_dir": WORKSPACE, "command": "echo ran >> gate.log; wc -l < gate.log"}
    first = await client.call(key, "shell_execute", args, timeout_seconds=30)
    box = sandbox.status("box")["restartCount"]
    await asyncio.to_thread(sandbox.kill, "gate")
    await wait_until_answering(sandbox)
    assert (first.outcome, first.result["output"].strip()) == ("succeeded", "1")
    assert await client.call(key, "shell_execute", args, timeout_seconds=30) == first
    assert await shell(client, "cat gate.log") == "ran"
    async with sandbox.client(session="s2") as other:
        with pytest.raises(GateError) as refused:
            await other.bind()
    assert refused.value.code == "forbidden"
    assert sandbox.status("box")["restartCount"] == box


async def test_a_killed_screen_restarts_together_with_the_browser(sandbox: SandboxPod, client: GateClient) -> None:
    assert (await open_page(client, RED)).outcome == "succeeded"
    await asyncio.to_thread(sandbox.kill, "vnc")
    opened = await open_page(client, BLUE)
    assert opened.outcome == "succeeded", opened.error
    assert await share_on_screen(client, BLUE) > 0.5


def test_a_deleted_pod_ends_by_itself(node: Node, sandbox: SandboxPod) -> None:
    """The first process of each container handles SIGTERM; otherwise it would be killed after the grace period."""
    pod = find_named(manifests()[1], "short-lived")
    pod["spec"]["terminationGracePeriodSeconds"] = 300
    SandboxPod.create(node, keys=sandbox.keys, pod=pod).delete(seconds=60)


async def wait_until_answering(sandbox: SandboxPod) -> None:
    async with httpx.AsyncClient(base_url=sandbox.url, timeout=2, trust_env=False) as http, asyncio.timeout(30):
        while not await answers(http):
            await asyncio.sleep(0.05)


async def answers(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/readyz")).status_code == 200
    except httpx.HTTPError:
        return False
