"""The AgentSession resource as api and runner write and read it. Pure: nothing here talks to a cluster."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from moorage_api.sandboxes.provider import Sandbox, SandboxState
from moorage_crds import names
from moorage_crds.types import AgentSessionSpec, AgentSessionStatus, DesiredState, SkillPin
from moorage_kube.client import Manifest

logger = logging.getLogger(__name__)


def manifest(
    session_id: UUID, *, owner_id: UUID, desired_state: DesiredState, skills: Sequence[SkillPin] = ()
) -> Manifest:
    """The resource as it is created."""
    labels = {**names.MANAGED_BY_API, names.SESSION_LABEL: str(session_id), names.OWNER_LABEL: str(owner_id)}
    spec = AgentSessionSpec(session_id=str(session_id), owner_id=str(owner_id), desired_state=desired_state)
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": names.resource_name(session_id), "labels": labels},
        "spec": {**spec.manifest(), "skills": skill_list(skills)},
    }


def running_patch(skills: Sequence[SkillPin]) -> Manifest:
    """A merge patch: a sandbox is wanted from now on, with these skills. None leaves the list as it is."""
    wanted: Manifest = {"desiredState": DesiredState.RUNNING.value}
    return {"spec": {**wanted, "skills": skill_list(skills)} if skills else wanted}


def suspended_patch(resource_version: str) -> Manifest:
    """A merge patch that is a conflict where somebody changed the resource since `resource_version`."""
    return {"metadata": {"resourceVersion": resource_version}, "spec": {"desiredState": DesiredState.SUSPENDED.value}}


def skill_list(skills: Sequence[SkillPin]) -> list[Manifest]:
    return [pin.manifest() for pin in skills]


@dataclass(frozen=True)
class Seen:
    """What we keep of a resource: a few hundred bytes for each session of the cluster."""

    resource_version: str
    is_wanted: bool
    """Whether the spec asks for a sandbox."""
    state: SandboxState
    sandbox: Sandbox | None
    """Where its gate is; only while it is ready."""


def seen(resource: Mapping[str, Any]) -> Seen:
    """Read a resource. A status that is older than the spec says nothing of what is wanted now."""
    metadata, spec = resource["metadata"], resource["spec"]
    status = status_in(resource)
    is_wanted = spec.get("desiredState") == DesiredState.RUNNING.value
    is_current = (status.observed_generation or 0) >= metadata["generation"]
    if not is_wanted or metadata.get("deletionTimestamp"):
        state = SandboxState("suspended")
    elif not is_current:
        state = SandboxState("starting")
    else:
        state = state_of(status)
    sandbox = sandbox_of(status) if state.phase == "ready" else None
    return Seen(str(metadata["resourceVersion"]), is_wanted, state, sandbox)


def status_in(resource: Mapping[str, Any]) -> AgentSessionStatus:
    """An empty one for what a later version of the operator wrote and we cannot read: nothing is known then."""
    try:
        return AgentSessionStatus.model_validate(resource.get("status") or {})
    except ValidationError as error:
        logger.error("The status of %s cannot be read: %s", resource["metadata"]["name"], error)
        return AgentSessionStatus()


def state_of(status: AgentSessionStatus) -> SandboxState:
    """The event that tells of this status, for a sandbox that is wanted."""
    ready, scheduled = status.condition("Ready"), status.condition("PodScheduled")
    if status.is_ready:
        return SandboxState("ready") if sandbox_of(status) else SandboxState("starting")
    if scheduled is not None and scheduled.reason == "Unschedulable":
        return SandboxState("queued", f"No node has room for the sandbox now: {scheduled.message}")
    if ready is not None and ready.reason == "QuotaExceeded":
        return SandboxState("queued", f"No more sandboxes are allowed now: {ready.message}")
    if status.phase == "Failed" and ready is not None:
        return SandboxState("failed", f"{ready.message} ({ready.reason})")
    return SandboxState("starting")


def sandbox_of(status: AgentSessionStatus) -> Sandbox | None:
    """The gate of a pod; None where the status does not say where that is, or not in the form it must have."""
    if not status.pod_uid or not status.pod_ip:
        return None
    try:
        address = ip_address(status.pod_ip)
    except ValueError:
        return None
    host = f"[{address}]" if address.version == 6 else str(address)
    return Sandbox(uid=status.pod_uid, url=f"http://{host}:{status.gate_port or names.GATE_PORT}")
