"""The latest known sessions and pods by name. An older state that arrives later does not replace a newer one."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from moorage_crds.names import session_id_of
from moorage_crds.types import AgentSession
from moorage_kube.client import Manifest
from moorage_operator.sandbox_pod.state import PodState

logger = logging.getLogger(__name__)

MAX_DELETED = 10_000


class Store:
    def __init__(self) -> None:
        self.sessions: dict[str, AgentSession] = {}
        self.pods: dict[str, PodState] = {}
        self._session_versions: dict[str, int] = {}
        """The resource version of every session, including those that cannot be parsed."""
        self._deleted: dict[str, float] = {}
        """The resource version at which each uid was deleted, for the last MAX_DELETED objects.

        The response to a request can arrive after the event of the deletion; it must not bring the object back. A
        state of that version or a later one is valid: then the object only stopped matching the selector of a watch.
        """

    def has_session(self, manifest: Manifest) -> bool:
        """Whether the session is known in exactly this version."""
        metadata = manifest["metadata"]
        return self._session_versions.get(metadata["name"]) == int(metadata["resourceVersion"])

    def has_pod(self, manifest: Manifest) -> bool:
        """Whether the pod is known in exactly this version."""
        known = self.pods.get(manifest["metadata"]["name"])
        return known is not None and known.version == int(manifest["metadata"]["resourceVersion"])

    def put_session(self, manifest: Manifest) -> str:
        """Store a session and return its name. A session that cannot be parsed is logged and left out."""
        name, version = str(manifest["metadata"]["name"]), int(manifest["metadata"]["resourceVersion"])
        if not self._is_deleted(manifest["metadata"]["uid"], version) and version >= self._session_versions.get(
            name, 0
        ):
            try:
                self.sessions[name] = AgentSession.from_manifest(manifest)
            except ValidationError as error:
                logger.error(
                    "An AgentSession cannot be parsed and is ignored",
                    extra={"session_id": session_id_of(name), "error": str(error)},
                )
                self.sessions.pop(name, None)
            self._session_versions[name] = version
        return name

    def put_pod(self, manifest: Manifest) -> str:
        """Store a pod and return its name."""
        pod = PodState.from_manifest(manifest)
        known = self.pods.get(pod.name)
        if not self._is_deleted(pod.uid, pod.version) and (known is None or pod.version >= known.version):
            self.pods[pod.name] = pod
        return pod.name

    def remove_session(self, manifest: Manifest) -> str:
        """Remove a deleted session and return its name. A later session of that name stays."""
        name = str(manifest["metadata"]["name"])
        known = self.sessions.get(name)
        if known is None or known.uid == manifest["metadata"]["uid"]:
            self.sessions.pop(name, None)
            self._session_versions.pop(name, None)
        self._remember_deleted(manifest)
        return name

    def remove_pod(self, manifest: Manifest) -> str:
        """Remove a deleted pod and return its name. A later pod of that name stays."""
        name = str(manifest["metadata"]["name"])
        if name in self.pods and self.pods[name].uid == manifest["metadata"]["uid"]:
            del self.pods[name]
        self._remember_deleted(manifest)
        return name

    def _is_deleted(self, uid: str, version: int) -> bool:
        return version < self._deleted.get(uid, 0)

    def _remember_deleted(self, manifest: Manifest) -> None:
        """An object that a request did not find has no resource version: then every version counts as deleted."""
        metadata = manifest["metadata"]
        self._deleted[metadata["uid"]] = float(metadata.get("resourceVersion", "inf"))
        if len(self._deleted) > MAX_DELETED:
            del self._deleted[next(iter(self._deleted))]

    def keep_sessions(self, names: set[str], listed_at: int) -> None:
        """Remove the sessions that a list of resource version `listed_at` no longer contains."""
        for name in self._session_versions.keys() - names:
            if self._session_versions[name] <= listed_at:
                self.sessions.pop(name, None)
                del self._session_versions[name]

    def keep_pods(self, names: set[str], listed_at: int) -> list[str]:
        """Remove the pods that a list of resource version `listed_at` no longer contains. Returns their names."""
        gone = [name for name in self.pods.keys() - names if self.pods[name].version <= listed_at]
        for name in gone:
            del self.pods[name]
        return gone
