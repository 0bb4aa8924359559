"""The pod of `tests/cluster/sandbox-pod.yaml` on a node: tests create it, call it and kill its containers."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moorage_kube.client import Manifest
from moorage_sandbox.client import GateClient
from support.gate import Keys
from support.kube.node import Node
from support.waiting import HANG_SECONDS

MANIFEST = Path(__file__).resolve().parents[2] / "cluster" / "sandbox-pod.yaml"
TRUST = "sandbox-trust"
CONTAINERS = ("gate", "vnc", "box")
PORT = 8080


def manifests() -> tuple[Manifest, Manifest]:
    """The namespace and the pod."""
    namespace, pod = yaml.safe_load_all(MANIFEST.read_text())
    return namespace, pod


def container_of(pod: Manifest, name: str) -> dict[str, Any]:
    """The part of the manifest that describes one container. It can be changed in place."""
    containers: list[dict[str, Any]] = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    return next(container for container in containers if container["name"] == name)


def find_named(pod: Manifest, name: str) -> Manifest:
    """A copy of the pod with another name."""
    other = copy.deepcopy(pod)
    other["metadata"]["name"] = name
    return other


def status_of(pod: Manifest, container: str) -> dict[str, Any]:
    """The status of one container; {} before the kubelet has written one."""
    status = pod.get("status", {})
    statuses = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return next((one for one in statuses if one["name"] == container), {})


@dataclass
class SandboxPod:
    """A pod that is Ready. `keys` are the keys in its trust file."""

    node: Node
    keys: Keys
    namespace: str
    name: str
    uid: str
    url: str

    @classmethod
    def create(cls, node: Node, *, keys: Keys, pod: Manifest | None = None, seconds: float = 120) -> SandboxPod:
        """Create `pod`, or by default the pod of the manifest, and wait until it is Ready."""
        namespace, written = manifests()
        pod = pod or written
        names = {"namespace": pod["metadata"]["namespace"], "name": pod["metadata"]["name"]}
        node.apply([namespace, trust_map(keys, names["namespace"]), pod])
        ready = node.wait_pod_ready(names["namespace"], names["name"], seconds=seconds)
        url = f"http://{ready['status']['podIP']}:{PORT}"
        return cls(node, keys, **names, uid=ready["metadata"]["uid"], url=url)

    def client(self, *, key: str = "runner", session: str = "s1", epoch: int = 1) -> GateClient:
        return GateClient(self.url, signer=self.keys.signer(key), sandbox_uid=self.uid, session_id=session, epoch=epoch)

    def publish_trust(self) -> None:
        """Write the current `keys` into the trust file. The kubelet takes some seconds to update it in the pod."""
        self.node.apply([trust_map(self.keys, self.namespace)])

    def run_in(self, container: str, *command: str) -> str:
        """Run a command in a container as its user and return the output. Raises NodeError when the command fails."""
        where = ("--namespace", self.namespace, self.name, "--container", container)
        return self.node.kubectl("exec", *where, "--", *command)

    def delete(self, *, seconds: float) -> None:
        """Delete the pod and wait until all its processes have ended. Raises NodeError after `seconds`."""
        where = ("--namespace", self.namespace, "pod", self.name)
        self.node.kubectl("delete", *where, f"--timeout={seconds}s", seconds=seconds + 10)

    def status(self, container: str) -> dict[str, Any]:
        return status_of(self.node.pod(self.namespace, self.name), container)

    def kill(self, container: str) -> None:
        """Send SIGKILL to the first process of a container, and wait until the kubelet has restarted the container."""
        before = self.status(container)["restartCount"]
        self.node.kill_container(self.status(container)["containerID"])

        def is_back() -> bool:
            status = self.status(container)
            return bool(status["restartCount"] > before and "running" in status["state"])

        self.node.wait(f"{container} to be started again", is_back, seconds=HANG_SECONDS)


def trust_map(keys: Keys, namespace: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": TRUST, "namespace": namespace},
        "data": {"trust.json": keys.trust_file.read_text()},
    }


def dry_run(node: Node, pod: Manifest) -> str:
    """Why the API server would refuse `pod`; empty if it would accept it."""
    done = node.kubectl_result("create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))
    return "" if done.returncode == 0 else done.stderr
