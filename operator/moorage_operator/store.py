"""What the watches and the lists have shown: sessions and pods by name, never older than before."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from moorage_crds.types import AgentSession
from moorage_kube.client import Manifest
from moorage_operator.pods import Pod

logger = logging.getLogger(__name__)

GONE_REMEMBERED = 10_000


class Store:
    def __init__(self) -> None:
        self.sessions: dict[str, AgentSession] = {}
        self.pods: dict[str, Pod] = {}
        self._versions: dict[str, int] = {}
        """Of the sessions, of those too that cannot be read."""
        self._gone: dict[str, float] = {}
        """Uids that were seen deleted, the last so many, and at which version: the answer to a request can come after
        that event. An object of that very version or later is there: it had only left what a watch selects."""

    def has_session(self, manifest: Manifest) -> bool:
        """Whether it is known as it is shown here."""
        metadata = manifest["metadata"]
        return self._versions.get(metadata["name"]) == int(metadata["resourceVersion"])

    def has_pod(self, manifest: Manifest) -> bool:
        known = self.pods.get(manifest["metadata"]["name"])
        return known is not None and known.version == int(manifest["metadata"]["resourceVersion"])

    def see_session(self, manifest: Manifest) -> str:
        """Take a resource as it was shown. Returns its name. One that cannot be read is left out."""
        name, version = str(manifest["metadata"]["name"]), int(manifest["metadata"]["resourceVersion"])
        if not self._is_gone(manifest["metadata"]["uid"], version) and version >= self._versions.get(name, 0):
            try:
                self.sessions[name] = AgentSession.from_manifest(manifest)
            except ValidationError as error:
                logger.error("A session cannot be read and is left alone", extra={"session": name, "error": str(error)})
                self.sessions.pop(name, None)
            self._versions[name] = version
        return name

    def see_pod(self, manifest: Manifest) -> str:
        pod = Pod.from_manifest(manifest)
        known = self.pods.get(pod.name)
        if not self._is_gone(pod.uid, pod.version) and (known is None or pod.version >= known.version):
            self.pods[pod.name] = pod
        return pod.name

    def forget_session(self, manifest: Manifest) -> str:
        name = str(manifest["metadata"]["name"])
        known = self.sessions.get(name)
        if known is None or known.uid == manifest["metadata"]["uid"]:
            self.sessions.pop(name, None)
            self._versions.pop(name, None)
        self._remember_gone(manifest)
        return name

    def forget_pod(self, manifest: Manifest) -> str:
        name = str(manifest["metadata"]["name"])
        if name in self.pods and self.pods[name].uid == manifest["metadata"]["uid"]:
            del self.pods[name]
        self._remember_gone(manifest)
        return name

    def _is_gone(self, uid: str, version: int) -> bool:
        return version < self._gone.get(uid, 0)

    def _remember_gone(self, manifest: Manifest) -> None:
        """One that was looked for and not found has no version."""
        metadata = manifest["metadata"]
        self._gone[metadata["uid"]] = float(metadata.get("resourceVersion", "inf"))
        if len(self._gone) > GONE_REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def keep_sessions(self, names: set[str], listed_at: int) -> None:
        """Drop what a list of that version no longer had."""
        for name in self._versions.keys() - names:
            if self._versions[name] <= listed_at:
                self.sessions.pop(name, None)
                del self._versions[name]

    def keep_pods(self, names: set[str], listed_at: int) -> list[str]:
        """Drop what a list of that version no longer had. Returns their names."""
        gone = [name for name in self.pods.keys() - names if self.pods[name].version <= listed_at]
        for name in gone:
            del self.pods[name]
        return gone
