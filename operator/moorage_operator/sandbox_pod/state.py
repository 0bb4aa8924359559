"""The observed state of a pod, reduced to the facts that decisions need: thousands of pods are kept in memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from moorage_crds import names
from moorage_kube.client import Manifest

IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
CREATION_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
POD_FAILURE_REASONS = {
    "Evicted": "Evicted",
    "NodeLost": "NodeLost",
    "NodeShutdown": "NodeShutdown",
    "Terminated": "NodeShutdown",
}
"""Our reason for each reason that Kubernetes gives when a whole pod fails."""
RESTARTS_TO_REPLACE = 4
"""After so many restarts the kubelet waits for minutes, while a new pod is ready within seconds."""

SkillsState = Literal["none", "syncing", "synced", "failed"]


@dataclass(frozen=True)
class PodProblem:
    """Why a pod does not work. `reason` is public API: it becomes the reason of a condition."""

    reason: str
    message: str
    needs_new_pod: bool = False


@dataclass(frozen=True)
class PodState:
    name: str
    uid: str
    version: int
    owner_uid: str | None
    labels: dict[str, str]
    created_at: datetime
    deleted_at: datetime | None
    """When the pod must have ended: Kubernetes adds the grace period to the time of the deletion."""
    ip: str | None
    is_scheduled: bool
    skills: SkillsState
    has_screen: bool
    is_ready: bool
    problem: PodProblem | None

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> PodState:
        metadata, status = manifest["metadata"], manifest.get("status", {})
        containers = {
            container["name"]: container
            for key in ("initContainerStatuses", "containerStatuses")
            for container in status.get(key, [])
        }
        init_containers = manifest["spec"].get("initContainers", [])
        expects_skills = any(container["name"] == "skills" for container in init_containers)
        owners = [owner["uid"] for owner in metadata.get("ownerReferences", []) if owner.get("controller")]
        conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            version=int(metadata["resourceVersion"]),
            owner_uid=owners[0] if owners else None,
            labels=dict(metadata.get("labels", {})),
            created_at=datetime.fromisoformat(metadata["creationTimestamp"]),
            deleted_at=_parse_time(metadata.get("deletionTimestamp")),
            ip=status.get("podIP"),
            is_scheduled=conditions.get("PodScheduled", {}).get("status") == "True",
            skills=_skills_state(containers.get("skills")) if expects_skills else "none",
            has_screen=_is_running(containers.get("vnc")),
            is_ready=_is_running(containers.get("gate")) and bool(containers.get("box", {}).get("ready")),
            problem=_find_problem(status, conditions, containers),
        )

    @property
    def session_label(self) -> str | None:
        return self.labels.get(names.SESSION_LABEL)


def _parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _is_running(container: Manifest | None) -> bool:
    return container is not None and "running" in container.get("state", {})


def _skills_state(container: Manifest | None) -> SkillsState:
    if container is None:
        return "syncing"
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
    if ended is None or (ended["exitCode"] != 0 and _is_running(container)):
        return "syncing"
    return "synced" if ended["exitCode"] == 0 else "failed"


def _find_problem(
    status: Manifest, conditions: dict[str, Manifest], containers: dict[str, Manifest]
) -> PodProblem | None:
    """The most serious problem of the pod, or None."""
    if status.get("phase") in ("Failed", "Succeeded"):
        reason = POD_FAILURE_REASONS.get(status.get("reason", ""), "PodFailed")
        return PodProblem(reason, status.get("message") or "The pod has ended", needs_new_pod=True)
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return PodProblem("Unschedulable", scheduled.get("message") or "No node can run the pod")
    for name, container in containers.items():
        if (problem := _find_container_problem(name, container)) is not None:
            return problem
    return None


def _find_container_problem(name: str, container: Manifest) -> PodProblem | None:
    state, last = container.get("state", {}), container.get("lastState", {})
    waiting = state.get("waiting", {})
    detail = waiting.get("message") or waiting.get("reason")
    if waiting.get("reason") in IMAGE_REASONS:
        return PodProblem("ImagePullFailed", f"The image of the container {name} cannot be pulled: {detail}")
    if waiting.get("reason") in CREATION_REASONS:
        return PodProblem("ContainerCannotStart", f"The container {name} cannot start: {detail}")
    ended = state.get("terminated") or last.get("terminated")
    if ended is None or ended["exitCode"] == 0 or (name != "skills" and container.get("ready")):
        return None
    if name == "skills":
        if "running" in state:
            return None  # it is trying again
        detail = (ended.get("message") or f"the container ended with exit code {ended['exitCode']}").strip()
        return PodProblem("SkillsFailed", f"The initial skills could not be fetched: {detail}")
    if container.get("restartCount", 0) >= RESTARTS_TO_REPLACE:
        cause = "it ran out of memory" if ended.get("reason") == "OOMKilled" else f"exit code {ended['exitCode']}"
        message = f"The container {name} ended {container['restartCount']} times; the last cause: {cause}"
        return PodProblem("CrashLooping", message, needs_new_pod=True)
    if ended.get("reason") == "OOMKilled":
        return PodProblem("OutOfMemory", f"The container {name} exceeded its memory limit and was restarted")
    return PodProblem(
        "ContainerEnded", f"The container {name} ended with exit code {ended['exitCode']} and was restarted"
    )
