"""The chart on a real one-node cluster, reached through a real proxy (make test-cluster).

One release for all: the tests follow its life, in the order that they are written in.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest

from moorage_crds import names
from moorage_sandbox.client import GateClient, TokenSigner
from support.accounts import Person, login
from support.helm import CHART, Values
from support.kube.cluster import STORAGE_CLASS, Cluster
from support.kube.errors import NodeError, UnavailableError
from support.kube.node import last_words

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(45 * 60)]

NAMESPACE = "moorage"
INSTALL_SECONDS = 600
OLD_PODS_END_SECONDS = 15
SERVERS = {"postgresql": 999, "valkey": 999, "minio": 1000}
STORED = {"persistence": {"storageClass": STORAGE_CLASS}}


def server(name: str) -> Values:
    small = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
    return {"image": f"localhost/moorage-test-{name}:test", "resources": small, **STORED}


VALUES: Values = {
    "images": {"tag": "test"},
    "ingress": {"enabled": True},
    "api": {
        "extraEnv": [{"name": "MOORAGE_SANDBOX_HOST_SOCKET", "value": "/none"}],
        "resources": {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
    },
    "runner": {
        "extraEnv": [{"name": "MOORAGE_SANDBOX_HOST_SOCKET", "value": "/none"}],
        "resources": {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
    },
    "operator": {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}},
    **{name: server(name) for name in SERVERS},
}


@dataclass
class Release:
    """What the tests of one file share, and what one leaves for the next."""

    cluster: Cluster
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
    """The first time it builds for many minutes, so its progress is shown while pytest keeps what tests print."""
    capturing = pytestconfig.pluginmanager.getplugin("capturemanager")
    with ExitStack() as stack:
        try:
            with capturing.global_and_fixture_disabled():
                booted = stack.enter_context(Cluster.booted())
        except UnavailableError as error:
            pytest.skip(f"no Kubernetes here: {error}")
        yield booted


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Release:
    """Installed, everything Ready, and the proxy at the edge."""
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
    cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}])
    for name, uid in SERVERS.items():
        cluster.make_volume(f"data-moorage-{name}-0", namespace=NAMESPACE, uid=uid)
    release = Release(cluster, VALUES)
    try:
        release.upgrade()
        cluster.start_edge(namespace=NAMESPACE, ingress="moorage-api")
        cluster.wait("the proxy to answer", lambda: is_ready(cluster.edge), seconds=30)
    except Exception as error:
        raise NodeError(f"{error}\n{cluster.describe(NAMESPACE)}\n{last_words(cluster.logs)}") from error
    return release


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_the_release_is_ready_and_its_own_test_passes(release: Release) -> None:
    assert "get agentsessions" in release.notes
    said = release.cluster.helm("test", "moorage", "--namespace", NAMESPACE)
    assert "Succeeded" in said


async def test_a_person_logs_in_and_keeps_a_file(release: Release) -> None:
    async with await release.admin() as admin:
        session = await admin.create_session()
        kept = await admin.upload("kept.txt", b"still here")
        release.seen |= {"session": session, "file": kept["id"]}


async def test_an_agent_session_gets_a_sandbox_that_trusts_the_keys_of_the_release(release: Release) -> None:
    cluster, session_id = release.cluster, str(uuid4())
    name = f"session-{session_id}"
    cluster.apply(
        [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"sessionId": session_id, "ownerId": "somebody", "desiredState": "Running"},
            }
        ]
    )
    release.seen["agent session"] = name

    def is_running() -> bool:
        shown = json.loads(cluster.kubectl("get", "agentsession", name, "-n", NAMESPACE, "-o", "json"))
        return bool(shown.get("status", {}).get("phase") == "Running")

    try:
        cluster.wait("the sandbox to run", is_running, seconds=180)
    except NodeError as error:
        raise NodeError(f"{error}\n{cluster.describe(NAMESPACE)}") from error
    header, row = cluster.kubectl("get", "agentsessions", name, "--namespace", NAMESPACE).splitlines()
    assert header.split() == ["NAME", "PHASE", "READY", "REASON", "OWNER", "POD", "AGE"]
    assert row.split()[:6] == [name, "Running", "True", "SandboxReady", "somebody", name]
    pod = cluster.pod(NAMESPACE, name)
    key = cluster.directory / "runner.pem"
    key.write_text(release.secret("moorage-runner-signing")["runner-1.pem"])
    async with GateClient(
        f"http://{pod['status']['podIP']}:{names.GATE_PORT}",
        signer=TokenSigner.from_file(key, key_id="runner-1", issuer="runner"),
        sandbox_uid=pod["metadata"]["uid"],
        session_id=session_id,
        epoch=1,
    ) as client:
        await client.bind()
        args = {"session_id": "main", "exec_dir": "/home/ubuntu/workspace", "command": "id -un"}
        answer = await client.call("1", "shell_execute", args, timeout_seconds=60)
    assert answer.result["output"].strip() == "ubuntu"


async def test_an_upgrade_keeps_data_and_secrets_and_drops_no_request(release: Release) -> None:
    names_of_secrets = ("moorage-credentials", "moorage-api-signing", "moorage-runner-signing")
    secrets = [release.secret(name) for name in names_of_secrets]
    statuses: Counter[int] = Counter()
    async with await release.admin() as admin:
        upgrading = asyncio.create_task(asyncio.to_thread(release.upgrade, llm={"model": "another"}))
        ends = None
        while ends is None or asyncio.get_running_loop().time() < ends:
            statuses[(await admin.client.get(f"/api/sessions/{release.seen['session']}")).status_code] += 1
            if ends is None and upgrading.done():
                ends = asyncio.get_running_loop().time() + OLD_PODS_END_SECONDS
        await upgrading
        content = await admin.client.get(f"/api/files/{release.seen['file']}/download")
    assert set(statuses) == {200}, statuses
    assert content.content == b"still here"
    assert secrets == [release.secret(name) for name in names_of_secrets]
    settings = release.cluster.kubectl("get", "configmap", "moorage-settings", "--namespace", NAMESPACE, "-o", "yaml")
    assert "MOORAGE_LLM_MODEL: another" in settings


def test_what_is_left_after_uninstalling_is_what_the_notes_say(release: Release) -> None:
    cluster = release.cluster
    cluster.helm("uninstall", "moorage", "--namespace", NAMESPACE, "--wait")
    kinds = (
        "deployments,statefulsets,services,secrets,configmaps,roles,rolebindings,networkpolicies,pvc,leases,ingresses"
    )
    kinds += ",serviceaccounts,poddisruptionbudgets,crd"
    left = set(cluster.kubectl("get", kinds, "--namespace", NAMESPACE, "--output=name").split())
    made_by_the_cluster = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
    assert left - made_by_the_cluster == {
        "secret/moorage-credentials",
        "customresourcedefinition.apiextensions.k8s.io/agentsessions.moorage.dev",
        "lease.coordination.k8s.io/moorage-operator",
        *(f"persistentvolumeclaim/data-moorage-{name}-0" for name in SERVERS),
    }
    told = [
        line.split()[1:]
        for line in release.notes.splitlines()
        if line.strip().startswith("kubectl") and "delete" in line
    ]
    for command in told:
        cluster.kubectl(*command)
    gone = set(cluster.kubectl("get", kinds, "--namespace", NAMESPACE, "--output=name").split())
    assert gone - made_by_the_cluster == set()
    cluster.wait("the sandbox pod to go", lambda: no_pods(cluster), seconds=60)


def no_pods(cluster: Cluster) -> bool:
    return not cluster.kubectl("get", "pods", "--namespace", NAMESPACE, "--output=name").split()
