"""What is seen of a pod, in the few facts that decisions need: thousands of them are kept at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from moorage_crds import names
from moorage_kube.client import Manifest

PULL_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
START_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
FAILED_REASONS = {
    "Evicted": "Evicted",
    "NodeLost": "NodeLost",
    "NodeShutdown": "NodeShutdown",
    "Terminated": "NodeShutdown",
}
RESTARTS_TO_REPLACE = 4
"""After so many the kubelet waits for minutes; a new pod is there in seconds."""

SkillsState = Literal["none", "syncing", "synced", "failed"]


@dataclass(frozen=True)
class Trouble:
    """Why a pod is not what it should be. `reason` is public."""

    reason: str
    message: str
    needs_new_pod: bool = False


@dataclass(frozen=True)
class Pod:
    name: str
    uid: str
    version: int
    owner_uid: str | None
    labels: dict[str, str]
    created_at: datetime
    deleted_at: datetime | None
    """When it should be gone by, grace included (Kubernetes sets it so)."""
    ip: str | None
    is_scheduled: bool
    skills: SkillsState
    has_screen: bool
    is_ready: bool
    trouble: Trouble | None

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Pod:
        metadata, status = manifest["metadata"], manifest.get("status", {})
        containers = {
            one["name"]: one for key in ("initContainerStatuses", "containerStatuses") for one in status.get(key, [])
        }
        expects_skills = any(one["name"] == "skills" for one in manifest["spec"].get("initContainers", []))
        owners = [one["uid"] for one in metadata.get("ownerReferences", []) if one.get("controller")]
        conditions = {one["type"]: one for one in status.get("conditions", [])}
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            version=int(metadata["resourceVersion"]),
            owner_uid=owners[0] if owners else None,
            labels=dict(metadata.get("labels", {})),
            created_at=datetime.fromisoformat(metadata["creationTimestamp"]),
            deleted_at=_time(metadata.get("deletionTimestamp")),
            ip=status.get("podIP"),
            is_scheduled=conditions.get("PodScheduled", {}).get("status") == "True",
            skills=_skills(containers.get("skills")) if expects_skills else "none",
            has_screen=_is_running(containers.get("vnc")),
            is_ready=_is_running(containers.get("gate")) and bool(containers.get("box", {}).get("ready")),
            trouble=_trouble(status, conditions, containers),
        )

    @property
    def session_label(self) -> str | None:
        return self.labels.get(names.SESSION_LABEL)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _is_running(container: Manifest | None) -> bool:
    return container is not None and "running" in container.get("state", {})


def _skills(container: Manifest | None) -> SkillsState:
    if container is None:
        return "syncing"
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
    if ended is None or (ended["exitCode"] != 0 and _is_running(container)):
        return "syncing"
    return "synced" if ended["exitCode"] == 0 else "failed"


def _trouble(status: Manifest, conditions: dict[str, Manifest], containers: dict[str, Manifest]) -> Trouble | None:
    """The first of these that holds; the gravest come first."""
    if status.get("phase") in ("Failed", "Succeeded"):
        reason = FAILED_REASONS.get(status.get("reason", ""), "PodFailed")
        return Trouble(reason, status.get("message") or "The pod ended", needs_new_pod=True)
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Trouble("Unschedulable", scheduled.get("message") or "No node takes the pod")
    for name, container in containers.items():
        if (trouble := _container_trouble(name, container)) is not None:
            return trouble
    return None


def _container_trouble(name: str, container: Manifest) -> Trouble | None:
    state, last = container.get("state", {}), container.get("lastState", {})
    waiting = state.get("waiting", {})
    said = waiting.get("message") or ""
    if waiting.get("reason") in PULL_REASONS:
        return Trouble("ImagePullFailed", f"The image of {name} cannot be pulled: {said or waiting['reason']}")
    if waiting.get("reason") in START_REASONS:
        return Trouble("ContainerCannotStart", f"{name} cannot start: {said or waiting['reason']}")
    ended = state.get("terminated") or last.get("terminated")
    if ended is None or ended["exitCode"] == 0 or (name != "skills" and container.get("ready")):
        return None
    if name == "skills":
        if "running" in state:
            return None  # it tries again
        why = (ended.get("message") or f"it ended with {ended['exitCode']}").strip()
        return Trouble("SkillsFailed", f"The skills could not be fetched: {why}")
    if container.get("restartCount", 0) >= RESTARTS_TO_REPLACE:
        why = "for want of memory" if ended.get("reason") == "OOMKilled" else f"with exit code {ended['exitCode']}"
        return Trouble(
            "CrashLooping", f"{name} ended {container['restartCount']} times, last {why}", needs_new_pod=True
        )
    if ended.get("reason") == "OOMKilled":
        return Trouble("OutOfMemory", f"{name} needed more memory than its limit and was restarted")
    return Trouble("ContainerEnded", f"{name} ended with exit code {ended['exitCode']} and was restarted")
