"""Build and read AgentSession resources. Pure functions: nothing here sends requests."""

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


def build_manifest(
    session_id: UUID, *, owner_id: UUID, desired_state: DesiredState, skills: Sequence[SkillPin] = ()
) -> Manifest:
    """Build a new resource."""
    labels = {**names.MANAGED_BY_API, names.SESSION_LABEL: str(session_id), names.OWNER_LABEL: str(owner_id)}
    spec = AgentSessionSpec(session_id=str(session_id), owner_id=str(owner_id), desired_state=desired_state)
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": names.resource_name(session_id), "labels": labels},
        "spec": {**spec.manifest(), "skills": skill_list(skills)},
    }


def running_patch(skills: Sequence[SkillPin]) -> Manifest:
    """Build a merge patch that asks for a sandbox with these skills. Without skills their list is not changed."""
    wanted: Manifest = {"desiredState": DesiredState.RUNNING.value}
    return {"spec": {**wanted, "skills": skill_list(skills)} if skills else wanted}


def suspended_patch(resource_version: str) -> Manifest:
    """Build a merge patch that suspends the sandbox. It is a conflict if the resource has changed meanwhile."""
    return {"metadata": {"resourceVersion": resource_version}, "spec": {"desiredState": DesiredState.SUSPENDED.value}}


def skill_list(skills: Sequence[SkillPin]) -> list[Manifest]:
    return [pin.manifest() for pin in skills]


@dataclass(frozen=True)
class KnownResource:
    """The part of a resource that we keep in memory: a few hundred bytes per session of the cluster."""

    resource_version: str
    is_wanted: bool
    """Whether the spec asks for a sandbox."""
    state: SandboxState
    sandbox: Sandbox | None
    """Only set while the sandbox is ready."""


def read_resource(resource: Mapping[str, Any]) -> KnownResource:
    """Read a resource. A status that is older than the spec is not used."""
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
    return KnownResource(str(metadata["resourceVersion"]), is_wanted, state, sandbox)


def status_in(resource: Mapping[str, Any]) -> AgentSessionStatus:
    """Read the status. If a newer operator wrote a status that we cannot parse, return an empty one."""
    try:
        return AgentSessionStatus.model_validate(resource.get("status") or {})
    except ValidationError as error:
        logger.error("Could not parse the status of AgentSession %s: %s", resource["metadata"]["name"], error)
        return AgentSessionStatus()


def state_of(status: AgentSessionStatus) -> SandboxState:
    """Convert the status of a wanted sandbox to a state."""
    ready, scheduled = status.condition("Ready"), status.condition("PodScheduled")
    if status.is_ready:
        return SandboxState("ready") if sandbox_of(status) else SandboxState("starting")
    if scheduled is not None and scheduled.reason == "Unschedulable":
        return SandboxState("queued", f"No node has enough free resources now: {scheduled.message}")
    if ready is not None and ready.reason == "QuotaExceeded":
        return SandboxState("queued", f"The quota of the namespace is used up: {ready.message}")
    if status.phase == "Failed" and ready is not None:
        return SandboxState("failed", f"{ready.message} ({ready.reason})")
    return SandboxState("starting")


def sandbox_of(status: AgentSessionStatus) -> Sandbox | None:
    """Build the address of a pod's gate. None if the status has no pod uid or no valid IP address."""
    if not status.pod_uid or not status.pod_ip:
        return None
    try:
        address = ip_address(status.pod_ip)
    except ValueError:
        return None
    host = f"[{address}]" if address.version == 6 else str(address)
    return Sandbox(uid=status.pod_uid, url=f"http://{host}:{status.gate_port or names.GATE_PORT}")
