"""What the watches and the lists have shown: sessions and pods by name, never older than before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from moorage_crds.types import AgentSession
from moorage_operator.pods import Pod

Manifest = dict[str, Any]


class Store:
    def __init__(self) -> None:
        self.sessions: dict[str, AgentSession] = {}
        self.pods: dict[str, Pod] = {}
        self._versions: dict[str, int] = {}

    def see_session(self, manifest: Manifest) -> str:
        """Take a resource as it was shown. Returns its name. What the schema should have refused is left out."""
        name, version = str(manifest["metadata"]["name"]), int(manifest["metadata"]["resourceVersion"])
        if version >= self._versions.get(name, 0):
            try:
                self.sessions[name] = AgentSession.from_manifest(manifest)
            except ValidationError:
                self.sessions.pop(name, None)
            self._versions[name] = version
        return name

    def see_pod(self, manifest: Manifest) -> str:
        pod = Pod.from_manifest(manifest)
        known = self.pods.get(pod.name)
        if known is None or pod.version >= known.version:
            self.pods[pod.name] = pod
        return pod.name

    def forget_session(self, manifest: Manifest) -> str:
        name = str(manifest["metadata"]["name"])
        if name in self.sessions and self.sessions[name].uid == manifest["metadata"]["uid"]:
            del self.sessions[name]
            self._versions.pop(name, None)
        return name

    def forget_pod(self, manifest: Manifest) -> str:
        name = str(manifest["metadata"]["name"])
        if name in self.pods and self.pods[name].uid == manifest["metadata"]["uid"]:
            del self.pods[name]
        return name

    def keep_sessions(self, names: Iterable[str], *, listed_at: int) -> None:
        """Drop what a list of that version no longer had."""
        for name in set(self.sessions) - set(names):
            if self._versions.get(name, 0) <= listed_at:
                del self.sessions[name]
                self._versions.pop(name, None)

    def keep_pods(self, names: Iterable[str], *, listed_at: int) -> None:
        for name in set(self.pods) - set(names):
            if self.pods[name].version <= listed_at:
                del self.pods[name]
