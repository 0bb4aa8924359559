"""AgentSessions that tests create, change and wait for, and an operator process that tests can kill."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx

from moorage_crds import names
from moorage_kube.client import MERGE_PATCH, KubeClient, KubeError, Manifest
from support.kube.control_plane import ControlPlane
from support.waiting import HANG_SECONDS, until

IMAGES = {"GATE_IMAGE": "moorage-gate:test", "VNC_IMAGE": "moorage-vnc:test", "BOX_IMAGE": "moorage-box:test"}


def agent_session(session_id: UUID | None = None, **spec: Any) -> Manifest:
    """A valid AgentSession with these fields of the spec."""
    session_id = session_id or uuid4()
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": names.resource_name(session_id)},
        "spec": {"sessionId": str(session_id), "ownerId": "alice", **spec},
    }


@dataclass
class Sessions:
    """The resources and pods of one namespace."""

    kube: KubeClient
    namespace: str

    @property
    def path(self) -> str:
        return f"/apis/{names.API_VERSION}/namespaces/{self.namespace}/{names.PLURAL}"

    @property
    def pods_path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    async def create(self, **spec: Any) -> str:
        made = await self.kube.request("POST", self.path, body=agent_session(**spec))
        return str(made["metadata"]["name"])

    async def patch(self, name: str, **spec: Any) -> None:
        await self.kube.request("PATCH", f"{self.path}/{name}", body={"spec": spec}, content_type=MERGE_PATCH)

    async def delete(self, name: str) -> None:
        await self.kube.request("DELETE", f"{self.path}/{name}")

    async def get(self, name: str) -> Manifest | None:
        return await self.kube.find(f"{self.path}/{name}")

    async def pod(self, name: str) -> Manifest | None:
        return await self.kube.find(f"{self.pods_path}/{name}")

    async def pods(self) -> list[Manifest]:
        answer = await self.kube.request("GET", self.pods_path)
        return list(answer["items"])

    async def condition(self, name: str, kind: str = "Ready") -> Manifest:
        resource = await self.get(name)
        conditions = (resource or {}).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    async def wait_for_condition(
        self, name: str, reason: str, *, kind: str = "Ready", seconds: float = HANG_SECONDS
    ) -> Manifest:
        """Wait until the condition has this reason, and return it."""
        seen: list[str] = []

        async def has_it() -> Manifest | None:
            condition = await self.condition(name, kind)
            if condition.get("reason") not in seen[-1:]:
                seen.append(str(condition.get("reason")))
            return condition if condition.get("reason") == reason else None

        found: Manifest = await until(has_it, f"{kind} of {name} is {reason} (was {seen})", seconds=seconds)
        return found


@asynccontextmanager
async def kube_client(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    kube = await KubeClient.connect(kubeconfig)
    try:
        yield kube
    finally:
        await kube.close()


@asynccontextmanager
async def namespace_on(control_plane: ControlPlane) -> AsyncIterator[Sessions]:
    """A new namespace, which is deleted at the end with everything in it."""
    name = f"t-{uuid4().hex[:12]}"
    async with kube_client(control_plane.kubeconfig) as kube:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        body["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}  # type: ignore[index]
        await kube.request("POST", "/api/v1/namespaces", body=body)
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        await until(lambda: kube.find(account), "the namespace has its service account")
        try:
            yield Sessions(kube, name)
        finally:
            with suppress(KubeError):
                await kube.request("DELETE", f"/api/v1/namespaces/{name}")


@dataclass
class Operator:
    """An operator process."""

    kubeconfig: Path
    namespace: str
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")},
            "KUBECONFIG": str(self.kubeconfig),
            "MOORAGE_OPERATOR_KUBECONFIG": str(self.kubeconfig),
            "MOORAGE_OPERATOR_NAMESPACE": self.namespace,
            "MOORAGE_OPERATOR_HTTP_HOST": "127.0.0.1",
            "MOORAGE_OPERATOR_HTTP_PORT": str(self.port),
            "MOORAGE_OPERATOR_LEASE_SECONDS": "3",
            "MOORAGE_OPERATOR_RENEW_SECONDS": "2",
            "MOORAGE_OPERATOR_RETRY_SECONDS": "0.3",
            **{f"MOORAGE_OPERATOR_POD__{name}": image for name, image in IMAGES.items()},
            **self.environment,
        }
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "moorage_operator.main", stderr=log, env=environment, start_new_session=True
            )

    async def wait_until_leading(self) -> None:
        async def leads() -> bool:
            return await self.metric("moorage_operator_leading") == 1

        await until(leads, f"the operator leads; its log:\n{self.read_log()}")

    async def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 while the operator does not respond."""
        try:
            async with httpx.AsyncClient() as client:
                text = (await client.get(f"http://127.0.0.1:{self.port}/metrics")).text
        except httpx.HTTPError:
            return 0.0
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(map(float, values))

    def read_log(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(HANG_SECONDS):
            return await self.process.wait()


def writes_in(audit_log: Path, namespace: str) -> list[tuple[str, str, str]]:
    """(user, verb, resource) of every successful write to sessions and pods of a namespace, from the audit log."""
    found = []
    for line in audit_log.read_text().splitlines():
        with suppress(ValueError):
            entry = json.loads(line)
            about, code = entry.get("objectRef", {}), entry.get("responseStatus", {}).get("code", 500)
            is_ours = about.get("namespace") == namespace and about.get("resource") in (names.PLURAL, "pods")
            if is_ours and code < 400:
                kind = "/".join(filter(None, (about["resource"], about.get("subresource"))))
                found.append((entry["user"]["username"], entry["verb"], kind))
    return found
