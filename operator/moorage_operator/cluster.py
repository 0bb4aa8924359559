"""The only module that talks to Kubernetes: reads into the store, and the few writes that there are."""

from __future__ import annotations

import logging
from typing import Any

from moorage_crds import names
from moorage_crds.types import AgentSession, AgentSessionStatus
from moorage_kube.client import MERGE_PATCH, KubeClient, KubeError, Manifest
from moorage_kube.informer import Informer, Observer
from moorage_operator import metrics
from moorage_operator.pods import Pod
from moorage_operator.store import Store

logger = logging.getLogger(__name__)


class Cluster:
    def __init__(self, kube: KubeClient, *, namespace: str) -> None:
        self._kube = kube
        self.store = Store()
        self._sessions = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"

    async def follow_pods(self, observer: Observer, *, relist_seconds: float) -> None:
        """Until it is cancelled."""
        follower = Informer(
            self._kube, self._pods, observer, selector=names.SESSION_LABEL, relist_seconds=relist_seconds
        )
        await follower.run()

    async def list_sessions(self) -> set[str]:
        """Read all, a page at a time. Returns the names of those that are or were there. Raises KubeError."""
        before = set(self.store.sessions)
        shown: set[str] = set()
        version = 0
        async for page in self._kube.pages(self._sessions):
            shown.update(self.store.see_session(manifest) for manifest in page["items"])
            version = int(page["metadata"]["resourceVersion"])
        self.store.keep_sessions(shown, version)
        return before | shown

    async def look(self, name: str) -> None:
        """Read one session and its pod as they are now. Raises KubeError."""
        for known, path, see, forget in (
            (self.store.sessions.get(name), self._sessions, self.store.see_session, self.store.forget_session),
            (self.store.pods.get(name), self._pods, self.store.see_pod, self.store.forget_pod),
        ):
            found = await self._kube.find(f"{path}/{name}")
            if known is not None and (found is None or found["metadata"]["uid"] != known.uid):
                forget({"metadata": {"name": name, "uid": known.uid}})
            if found is not None:
                see(found)

    async def create_pod(self, manifest: Manifest) -> None:
        """Where one of that name is there already, it is looked at instead: it may be ours."""
        try:
            created = await self._write("create", "pod", "POST", self._pods, body=manifest)
        except KubeError as error:
            if error.reason != "AlreadyExists":
                raise
            found = await self._kube.find(f"{self._pods}/{manifest['metadata']['name']}")
            if found is not None:
                self.store.see_pod(found)
            return
        self.store.see_pod(created)

    async def delete_pod(self, pod: Pod, *, at_once: bool = False) -> None:
        """This very pod, not a later one of its name. One that is gone is fine. Raises KubeError, 409 for another's."""
        body: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": pod.uid}}
        if at_once:
            body["gracePeriodSeconds"] = 0
        gone = {"metadata": {"name": pod.name, "uid": pod.uid}}
        try:
            answer = await self._write("delete", "pod", "DELETE", f"{self._pods}/{pod.name}", body=body)
        except KubeError as error:
            if error.status != 404:
                raise
            self.store.forget_pod(gone)
            return
        if answer.get("kind") != "Pod":
            return
        metadata = answer["metadata"]
        if "finalizers" in metadata or (metadata.get("deletionGracePeriodSeconds") and not at_once):
            self.store.see_pod(answer)
        else:  # it was not on a node, had ended, or was not to be waited for: it is gone already
            self.store.forget_pod(gone)

    async def label_pod(self, pod: Pod, labels: dict[str, str]) -> None:
        body = {"metadata": {"uid": pod.uid, "labels": labels}}
        changed = await self._write(
            "patch", "pod", "PATCH", f"{self._pods}/{pod.name}", body=body, content_type=MERGE_PATCH
        )
        self.store.see_pod(changed)

    async def write_status(self, session: AgentSession, status: AgentSessionStatus) -> None:
        """One merge patch. Fields that are gone are taken out; the uid keeps it from a later resource of that name."""
        told = status.manifest()
        gone = {name: None for name in session.status.manifest() if name not in told}
        changed = await self._write(
            "patch",
            "agentsession status",
            "PATCH",
            f"{self._sessions}/{session.name}/status",
            body={"metadata": {"uid": session.uid}, "status": {**told, **gone}},
            content_type=MERGE_PATCH,
        )
        self.store.see_session(changed)

    async def delete_session(self, session: AgentSession) -> None:
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": session.uid}}
        try:
            await self._write("delete", "agentsession", "DELETE", f"{self._sessions}/{session.name}", body=body)
        except KubeError as error:
            if error.status not in (404, 409):
                raise

    async def _write(self, verb: str, what: str, method: str, path: str, **options: Any) -> Manifest:
        metrics.WRITES.labels(verb=verb, resource=what).inc()
        return await self._kube.request(method, path, **options)
