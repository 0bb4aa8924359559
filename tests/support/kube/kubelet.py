"""A stand-in for scheduler and kubelet: it sets the status of the pods of one namespace as a test wants it.

It uses the real API server, which validates every step. It does not run containers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from moorage_kube.client import MERGE_PATCH, KubeClient, KubeError, Manifest

Behaviour = Callable[[Manifest], Manifest | None]
"""Returns the status of a pod that is on the node, or None for a pod that no node can run."""

NODE = "stand-in"
POD_IP = "10.0.0.1"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def running_status(pod: Manifest) -> Manifest:
    """The status of a pod whose containers all run and are ready."""
    return status(pod, ready=True)


def status(
    pod: Manifest,
    *,
    phase: str = "Running",
    ready: bool = False,
    containers: Mapping[str, Manifest] | None = None,
    **more: Any,
) -> Manifest:
    """A status as the kubelet writes it. `containers` overrides fields of single containers, for example the state."""

    def container_status(one: Manifest) -> Manifest:
        state = {"terminated": terminated(0)} if one["name"] == "skills" else {"running": {"startedAt": now()}}
        is_ready = ready or one["name"] != "box"
        pod_status = {"state": state, "ready": is_ready, "started": True, "restartCount": 0, "image": one["image"]}
        return {"name": one["name"], "imageID": "", **pod_status, **(containers or {}).get(one["name"], {})}

    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now()}
    return {
        "phase": phase,
        "podIP": POD_IP,
        "podIPs": [{"ip": POD_IP}],
        "conditions": [condition, {**condition, "type": "Ready", "status": str(ready)}],
        "initContainerStatuses": [container_status(one) for one in pod["spec"].get("initContainers", [])],
        "containerStatuses": [container_status(one) for one in pod["spec"]["containers"]],
        **more,
    }


def terminated(code: int, *, reason: str = "Error", message: str = "") -> Manifest:
    return {
        "exitCode": code,
        "reason": "Completed" if code == 0 else reason,
        "message": message,
        "startedAt": now(),
        "finishedAt": now(),
    }


def waiting(reason: str, message: str = "") -> Manifest:
    return {"state": {"waiting": {"reason": reason, "message": message}}, "ready": False, "started": False}


class Kubelet:
    """A test can change `behave` at any time. `holds_on` keeps pods from terminating, like a lost node."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self.behave: Behaviour = running_status
        self.holds_on = False
        self.seen: list[str] = []
        """The UIDs of all pods in the order in which they were created."""
        self._ending: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def at_work(cls, kube: KubeClient, namespace: str) -> AsyncIterator[Kubelet]:
        kubelet = cls(kube, namespace)
        task = asyncio.create_task(kubelet._run())
        try:
            yield kubelet
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            async for page in self._kube.pages(self._pods):
                version = page["metadata"]["resourceVersion"]
                for pod in page["items"]:
                    group.create_task(self._handle(pod))
            while True:
                try:
                    async for event in self._kube.watch(self._pods, since=version):
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] in ("ADDED", "MODIFIED"):
                            group.create_task(self._handle(event["object"]))
                except KubeError as error:
                    if error.is_expired:
                        raise
                    await asyncio.sleep(0.2)

    async def _handle(self, pod: Manifest) -> None:
        path = f"{self._pods}/{pod['metadata']['name']}"
        with suppress(KubeError):  # the pod is gone, or another event has done this already
            if pod["metadata"].get("deletionTimestamp"):
                await self._end(pod, path)
                return
            if pod["spec"].get("nodeName") or pod["metadata"]["uid"] in self.seen:
                return
            self.seen.append(pod["metadata"]["uid"])
            pod_status = self.behave(pod)
            if pod_status is None:
                await self._show(path, unschedulable_status())
                return
            target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
            body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}}
            await self._kube.request("POST", f"{path}/binding", body={**body, "target": target})
            await self._show(path, pod_status)

    async def _end(self, pod: Manifest, path: str) -> None:
        """Do this once, although several events report the pod."""
        uid = pod["metadata"]["uid"]
        if self.holds_on or uid in self._ending:
            return
        self._ending.add(uid)
        try:
            body = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
            await self._kube.request("DELETE", path, body=body)
        finally:
            self._ending.discard(uid)

    async def show(self, name: str, pod_status: Manifest) -> None:
        """Set the status of a running pod."""
        await self._show(f"{self._pods}/{name}", pod_status)

    async def _show(self, path: str, pod_status: Manifest) -> None:
        await self._kube.request("PATCH", f"{path}/status", body={"status": pod_status}, content_type=MERGE_PATCH)


def unschedulable_status() -> Manifest:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient memory.",
        "lastTransitionTime": now(),
    }
    return {"phase": "Pending", "conditions": [condition]}
