"""The chart on a real cluster of one node, behind a real proxy (make test-cluster).

All tests share one release. They follow its life, so they run in the order of this file.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from moorage_crds import names
from moorage_crds.types import MAX_INITIAL_SKILLS
from moorage_kube.client import Manifest
from support import report
from support.accounts import Person, data, login
from support.helm import CHART, Values
from support.kube.cluster import STORAGE_CLASS, Cluster
from support.kube.control_plane import SERVICES
from support.kube.errors import NodeError
from support.kube.fixtures import boot
from support.kube.node import last_log_lines
from support.llm import Call, Finish, Plan, Say, ScriptedModel, Turn, by_first_message
from support.skills import GitHub, brand_report, running_github
from support.sse import Chat, Frame

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(45 * 60)]

NAMESPACE = "moorage"
INSTALL_SECONDS = 600
OLD_PODS_END_SECONDS = 15
PLAIN_MCP = Path(__file__).parents[1] / "support" / "plain_mcp.py"
SERVERS = {"postgresql": 999, "valkey": 999, "minio": 1000}
STORED = {"persistence": {"storageClass": STORAGE_CLASS}}


def server(name: str) -> Values:
    small = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
    return {"image": f"localhost/moorage-test-{name}:test", "resources": small, **STORED}


VALUES: Values = {
    "images": {"tag": "test"},
    "ingress": {"enabled": True},
    "settings": {"MOORAGE_LIMIT_READS": "100000", "MOORAGE_LIMIT_WRITES": "100000"},  # the tests send many requests
    "api": {
        "resources": {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
    },
    "runner": {
        "resources": {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
    },
    "operator": {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}},
    **{name: server(name) for name in SERVERS},
}

SCRIPT: list[Turn] = [
    *report.script(),
    Plan("Long work", "I will try.", ["Try"]),
    report.shell("echo begun; sleep 600"),
    report.shell("echo again"),
    Finish("It was lost and done again."),
    Say("Done at last."),
]

SKILLS = [f"paint-{colour:02}" for colour in range(14)]
ASKED = "Paint with paint-13"
"""This message names the last skill, so that skill is initial. The others rank the same, so the first names follow."""
INITIAL = {"paint-13", *SKILLS[: MAX_INITIAL_SKILLS - 1]}
ARRIVED = "cd .skills; for try in $(seq 300); do test $(ls */SKILL.md | wc -l) = 14 && break; sleep 0.1; done; "
SKILLS_SCRIPT: list[Turn] = [
    Plan("Painting", "I will look at my skills.", ["Look"]),
    report.shell("date +%s.%N; cat .skills/*/references/colour.txt"),
    report.shell(ARRIVED + "cat */references/colour.txt"),
    Call("skill_paint-13_run", {"args": ["blue"]}),
    Finish("They are all there."),
    Say("Painted."),
]


@dataclass
class ClusterRelease:
    """What the tests share, and what one test leaves for the next."""

    cluster: Cluster
    model: ScriptedModel
    github: GitHub
    values: Values
    notes: str = ""
    seen: dict[str, Any] = field(default_factory=dict)

    def upgrade(self, **changes: Values) -> None:
        values = {**self.values, **changes}
        wait = ("--wait", "--timeout", f"{INSTALL_SECONDS}s")
        self.notes = self.cluster.helm(
            *("upgrade", "--install", "moorage", str(CHART), "--namespace", NAMESPACE, *wait),
            values=values,
            seconds=INSTALL_SECONDS + 60,
        )

    def secret(self, name: str) -> dict[str, str]:
        shown = self.cluster.kubectl("get", "secret", name, "--namespace", NAMESPACE, "--output=json")
        return {key: base64.b64decode(value).decode() for key, value in json.loads(shown)["data"].items()}

    async def admin(self) -> Person:
        return await login(self.cluster.edge, "admin", self.secret("moorage-credentials")["admin-password"])


@pytest.fixture(scope="module")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    with boot(Cluster.boot(), pytestconfig) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[ClusterRelease]:
    """The installed release, with everything Ready, behind the proxy."""
    host, script = str(cluster.network.host_address), by_first_message([(ASKED, SKILLS_SCRIPT), ("", SCRIPT)])
    with (
        ScriptedModel(script, host=host, chunk_chars=20, chunk_delay_seconds=0.03) as model,
        running_github(host=host) as github,
    ):
        yield installed(cluster, model, github)


def installed(cluster: Cluster, model: ScriptedModel, github: GitHub) -> ClusterRelease:
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
    cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}])
    for name, uid in SERVERS.items():
        cluster.make_volume(f"data-moorage-{name}-0", namespace=NAMESPACE, uid=uid)
    llm = {"baseUrl": model.url, "model": "scripted", "existingSecret": "llm"}
    key = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "llm", "namespace": NAMESPACE}}
    cluster.apply([{**key, "stringData": {"llm-api-key": "a secret key"}}])
    settings = {
        **VALUES["settings"],
        "MOORAGE_SKILLS_GITHUB_ARCHIVE_URL": github.url,
        "MOORAGE_OUTBOUND_PRIVATE": "llm,skills",
    }
    release = ClusterRelease(cluster, model, github, {**VALUES, "llm": llm, "settings": settings})
    try:
        release.upgrade()
        cluster.start_edge(namespace=NAMESPACE, ingress="moorage-api")
        cluster.wait("the proxy to answer", lambda: is_ready(cluster.edge), seconds=30)
    except Exception as error:
        raise NodeError(f"{error}\n{cluster.describe(NAMESPACE)}\n{last_log_lines(cluster.logs)}") from error
    return release


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_the_release_is_ready_and_its_own_test_passes(release: ClusterRelease) -> None:
    assert "get agentsessions" in release.notes
    output = release.cluster.helm("test", "moorage", "--namespace", NAMESPACE)
    assert "Succeeded" in output


async def test_a_person_logs_in_and_keeps_a_file(release: ClusterRelease) -> None:
    async with await release.admin() as admin:
        session = await admin.create_session()
        kept = await admin.upload("kept.txt", b"still here")
        release.seen |= {"session": session, "file": kept["id"]}


async def test_a_chat_through_the_proxy_uses_shell_files_and_browser_in_a_pod(release: ClusterRelease) -> None:
    """The task and the events are the same as on one machine, and a picture shows the screen of the pod."""
    cluster = release.cluster
    async with await release.admin() as admin:
        uploaded = await admin.upload("sales.csv", report.CSV.encode(), "text/csv")
        session = await admin.create_session()
        name = names.resource_name(UUID(session))
        watcher = report.Watcher(admin, url=cluster.edge, session_id=session)
        chat = Chat(session, admin.token, lambda: cluster.edge)
        release.seen |= {"chat": chat, "name": name}
        try:
            ending = await chat.say(
                "Make a chart and a short report",
                attachments=[uploaded["id"]],
                on_frame=watcher.on_frame,
                timeout_seconds=300,
            )
        except TimeoutError as error:
            raise NodeError(f"{error}\n{cluster.describe(NAMESPACE)}") from error
        assert ending.event == "done", f"{ending.data}\n{cluster.describe(NAMESPACE)}"
        assert chat.breaks == 0
        assert await watcher.red_share() > 0.5
        assert [frame.data["phase"] for frame in chat.stored if frame.event == "sandbox"] == ["starting", "ready"]
        assert any(frame.data["partial"] for frame in chat.partials)
        files = data(await admin.client.get(f"/api/sessions/{session}/files"))["files"]
        assert {file["filepath"] for file in files} == {report.UPLOADED, report.CHART, report.REPORT}
        assert str(report.TOTAL) in chat.all("message", role="assistant")[-1]["message"]
        row = agent_session_row(cluster, name)
        assert row[:6] == [name, "Running", "True", "SandboxReady", admin.id, name]


def agent_session_row(cluster: Cluster, name: str) -> list[str]:
    header, row = cluster.kubectl("get", "agentsessions", name, "--namespace", NAMESPACE).splitlines()
    assert header.split() == ["NAME", "PHASE", "READY", "REASON", "OWNER", "POD", "AGE"]
    return row.split()


async def test_initial_skills_are_in_the_sandbox_before_the_tools_start_and_the_rest_follow(
    release: ClusterRelease,
) -> None:
    cluster = release.cluster
    made = {f"skills/{name}/{path}": content for name in SKILLS for path, content in painting(name).items()}
    release.github.offer("main", made)
    async with await release.admin() as admin:
        skills: dict[str, str] = {}
        for name in SKILLS:
            body = {"source_type": "github", "source_ref": f"https://github.com/acme/skills/tree/main/skills/{name}"}
            skills[name] = data(await admin.client.post("/api/v2/skills/install", json=body))["id"]
        session = await admin.create_session()
        resource = names.resource_name(UUID(session))
        chat = Chat(session, admin.token, lambda: cluster.edge)
        try:
            ending = await chat.say(ASKED, timeout_seconds=300)
        except TimeoutError as error:
            raise NodeError(f"{error}\n{cluster.describe(NAMESPACE)}") from error
        assert ending.event == "done", f"{ending.data}\n{cluster.describe(NAMESPACE)}"
        at_first, later, painted = [json.dumps(call["content"]) for call in chat.all("tool", status="called")]
        pod = cluster.pod(NAMESPACE, resource)
        wanted = json.loads(cluster.kubectl("get", "agentsession", resource, "--namespace", NAMESPACE, "--output=json"))
        log = cluster.kubectl("logs", resource, "--container=skills", "--namespace", NAMESPACE)
        data(await admin.client.post(f"/api/sessions/{session}/delete"))
    fetched, box = (
        next(one["state"] for one in pod["status"][kind] if one["name"] == name)
        for kind, name in (("initContainerStatuses", "skills"), ("containerStatuses", "box"))
    )
    assert fetched["terminated"]["exitCode"] == 0
    assert fetched["terminated"]["finishedAt"] <= box["running"]["startedAt"]
    assert f"Fetched {MAX_INITIAL_SKILLS} of {MAX_INITIAL_SKILLS} skills" in log
    pins = wanted["spec"]["skills"]
    assert len(pins) == len(SKILLS)
    initial = {pin["id"] for pin in pins if pin["phase"] == "initial"}
    assert {skills[name] for name in INITIAL} == initial
    assert {name for name in SKILLS if f"{name} is blue" in at_first} >= INITIAL
    assert {name for name in SKILLS if f"{name} is blue" in later} == set(SKILLS)
    assert "== blue ==" in painted


def painting(name: str) -> dict[str, bytes]:
    return {**brand_report(name), "references/colour.txt": f"{name} is blue\n".encode()}


PROBE = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("reached")
except OSError as error:
    print(type(error).__name__)
"""


def probe(cluster: Cluster, pod: str, container: str, host: str, port: int) -> str:
    """The result of a connection to an address from a program in that container."""
    where = ("--namespace", NAMESPACE, pod, "--container", container)
    return cluster.kubectl("exec", *where, "--", "python3", "-c", PROBE, host, str(port)).strip()


def pod_of(cluster: Cluster, component: str) -> Manifest:
    selector = f"--selector=app.kubernetes.io/component={component}"
    shown = cluster.kubectl("get", "pods", selector, "--namespace", NAMESPACE, "--output=json")
    pod: Manifest = json.loads(shown)["items"][0]
    return pod


def test_a_command_reaches_only_skills_and_name_servers_of_the_cluster(release: ClusterRelease) -> None:
    """The runner, whose egress is open, can reach the same addresses that a sandbox cannot reach."""
    cluster, sandbox = release.cluster, release.seen["name"]
    runner = pod_of(cluster, "runner")["metadata"]["name"]
    addresses = {
        component: pod_of(cluster, component)["status"]["podIP"] for component in ("api", "operator", *SERVERS)
    }
    closed = {
        "the API server, as its Service": (str(SERVICES[1]), 443),
        "the API server": (str(cluster.network.node_address), 6443),
        "the kubelet": (str(cluster.network.node_address), 10250),
        "the api's users' port": (addresses["api"], 8000),
        "the operator": (addresses["operator"], 8080),
        "PostgreSQL": (addresses["postgresql"], 5432),
        "PostgreSQL, by name": ("moorage-postgresql", 5432),
        "Valkey": (addresses["valkey"], 6379),
        "MinIO": (addresses["minio"], 9000),
        "the model": (str(cluster.network.host_address), int(release.model.url.rpartition(":")[2].partition("/")[0])),
    }
    open_to_the_runner = {name for name, at in closed.items() if probe(cluster, runner, "runner", *at) == "reached"}
    assert open_to_the_runner == set(closed)
    commands = pod_of(cluster, "commands")["metadata"]["name"]
    for pod, container in ((sandbox, "box"), (commands, "commands")):
        reached = {name for name, address in closed.items() if probe(cluster, pod, container, *address) == "reached"}
        assert reached == set(), container
    assert probe(cluster, sandbox, "box", "moorage-skills", 8001) == "reached"
    assert probe(cluster, commands, "commands", "moorage-skills", 8001) != "reached"


async def test_the_command_of_an_admin_runs_in_a_pod_without_secrets_of_the_platform(release: ClusterRelease) -> None:
    command = {"transport": "stdio", "command": "python3", "args": ["-c", PLAIN_MCP.read_text()]}
    async with await release.admin() as admin:
        where = "/api/app-config/mcp-servers"
        data(await admin.client.post(where, json={"mcpServers": {"plain": command}}))
        (shown,) = data(await admin.client.get(where))["mcp_servers"]
        data(await admin.client.post(f"{where}/plain/delete"))
    assert shown["tools"] == ["variables"], shown
    mine = ("--namespace", NAMESPACE, pod_of(release.cluster, "commands")["metadata"]["name"])
    environment = release.cluster.kubectl("exec", *mine, "--container", "commands", "--", "env")
    assert [secret for secret in release.secret("moorage-credentials").values() if secret in environment] == []
    assert release.secret("moorage-commands")["token"] not in environment


def test_only_api_and_runner_reach_gates_commands_and_stores(release: ClusterRelease) -> None:
    cluster = release.cluster
    commands = pod_of(cluster, "commands")["status"]["podIP"]
    gate = cluster.pod(NAMESPACE, release.seen["name"])["status"]["podIP"]
    database = pod_of(cluster, "postgresql")["status"]["podIP"]
    seen = {
        (component, port): probe(cluster, pod_of(cluster, component)["metadata"]["name"], component, host, port)
        for component in ("api", "runner", "operator")
        for host, port in ((gate, names.GATE_PORT), (database, 5432), (commands, 8091))
    }
    assert {who for who, what in seen.items() if what == "reached"} == {
        *((component, port) for component in ("api", "runner") for port in (names.GATE_PORT, 5432, 8091))
    }


async def test_a_killed_pod_is_replaced_and_the_model_is_told(release: ClusterRelease) -> None:
    cluster, name = release.cluster, release.seen["name"]
    async with await release.admin() as admin:
        chat = Chat(release.seen["chat"].session_id, admin.token, lambda: cluster.edge)
        chat.stored = list(release.seen["chat"].stored)
        lost = cluster.pod(NAMESPACE, name)["metadata"]["uid"]
        kills: list[asyncio.Task[str]] = []

        def on_frame(frame: Frame) -> None:
            if frame.data.get("function") == "shell_execute" and frame.data["status"] == "calling" and not kills:
                where = ("--namespace", NAMESPACE, "pod", name, "--grace-period=0", "--force")
                kills.append(asyncio.create_task(asyncio.to_thread(cluster.kubectl, "delete", *where)))

        ending = await chat.say("Now something long", on_frame=on_frame, timeout_seconds=300)
        await asyncio.gather(*kills)
    assert ending.event == "done", f"{ending.data}\n{cluster.describe(NAMESPACE)}"
    assert cluster.pod(NAMESPACE, name)["metadata"]["uid"] != lost
    messages = str(release.model.requests[-1]["messages"])
    assert "The sandbox of this session was lost" in messages
    assert "unknown" in messages


@pytest.mark.parametrize(
    ("lost", "sessions", "file"),
    [("minio", {200}, {503}), ("valkey", {503}, {503}), ("postgresql", {502, 503, 504}, {502, 503, 504})],
)
async def test_losing_a_server_fails_only_what_needs_it_and_only_until_it_is_back(
    release: ClusterRelease, lost: str, sessions: set[int], file: set[int]
) -> None:
    paths = {"sessions": "/api/sessions", "file": f"/api/files/{release.seen['file']}/download"}

    async with await release.admin() as admin:

        async def answers(wanted: dict[str, set[int]]) -> None:
            async with asyncio.timeout(120):
                while any([(await admin.client.get(paths[name])).status_code not in wanted[name] for name in wanted]):
                    await asyncio.sleep(0.2)

        where = ("--namespace", NAMESPACE, "statefulset", f"moorage-{lost}")
        release.cluster.kubectl("scale", *where, "--replicas=0")
        try:
            release.cluster.wait("its pod to go", lambda: not pods(release.cluster, lost), seconds=60)
            await answers({"sessions": sessions, "file": file})
        finally:
            release.cluster.kubectl("scale", *where, "--replicas=1")
        await answers({"sessions": {200}, "file": {200}})
        assert (await admin.client.get(paths["file"])).content == b"still here"


def pods(cluster: Cluster, component: str) -> list[str]:
    selector = f"--selector=app.kubernetes.io/component={component}"
    return cluster.kubectl("get", "pods", selector, "--namespace", NAMESPACE, "--output=name").split()


async def test_an_upgrade_keeps_data_and_secrets_and_drops_no_request(release: ClusterRelease) -> None:
    names_of_secrets = ("moorage-credentials", "moorage-api-signing", "moorage-runner-signing", "moorage-commands")
    secrets = [release.secret(name) for name in names_of_secrets]
    statuses: Counter[int] = Counter()
    async with await release.admin() as admin:
        upgrading = asyncio.create_task(
            asyncio.to_thread(release.upgrade, llm={**release.values["llm"], "model": "another"})
        )
        ends = None
        while ends is None or asyncio.get_running_loop().time() < ends:
            statuses[(await admin.client.get("/readyz")).status_code] += 1
            if ends is None and upgrading.done():
                ends = asyncio.get_running_loop().time() + OLD_PODS_END_SECONDS
        await upgrading
        assert data(await admin.client.get(f"/api/sessions/{release.seen['session']}"))
        content = await admin.client.get(f"/api/files/{release.seen['file']}/download")
    assert set(statuses) == {200}, statuses
    assert content.content == b"still here"
    assert secrets == [release.secret(name) for name in names_of_secrets]
    settings = release.cluster.kubectl("get", "configmap", "moorage-settings", "--namespace", NAMESPACE, "-o", "yaml")
    assert "MOORAGE_LLM_MODEL: another" in settings


def test_uninstalling_keeps_exactly_what_the_notes_say(release: ClusterRelease) -> None:
    cluster = release.cluster
    cluster.helm("uninstall", "moorage", "--namespace", NAMESPACE, "--wait")
    kinds = (
        "deployments,statefulsets,services,secrets,configmaps,roles,rolebindings,networkpolicies,pvc,leases,ingresses"
    )
    kinds += ",serviceaccounts,poddisruptionbudgets,crd"
    left = set(cluster.kubectl("get", kinds, "--namespace", NAMESPACE, "--output=name").split())
    not_ours = {"secret/llm", "configmap/kube-root-ca.crt", "serviceaccount/default"}
    assert left - not_ours == {
        "secret/moorage-credentials",
        "customresourcedefinition.apiextensions.k8s.io/agentsessions.moorage.dev",
        "lease.coordination.k8s.io/moorage-operator",
        *(f"persistentvolumeclaim/data-moorage-{name}-0" for name in SERVERS),
    }
    commands = [
        line.split()[1:]
        for line in release.notes.splitlines()
        if line.strip().startswith("kubectl") and "delete" in line
    ]
    for command in commands:
        cluster.kubectl(*command)
    gone = set(cluster.kubectl("get", kinds, "--namespace", NAMESPACE, "--output=name").split())
    assert gone - not_ours == set()
    cluster.wait("the sandbox pod to go", lambda: no_pods(cluster), seconds=60)


def no_pods(cluster: Cluster) -> bool:
    return not cluster.kubectl("get", "pods", "--namespace", NAMESPACE, "--output=name").split()
