"""Derives the conditions of a session from its pod. Pure. `phase_of` alone reduces them to one word."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from moorage_crds import names
from moorage_crds.types import (
    AgentSession,
    AgentSessionStatus,
    Condition,
    ConditionStatus,
    ConditionType,
    DesiredState,
    Phase,
)
from moorage_operator.sandbox_pod.state import PodProblem, PodState

MAX_MESSAGE_CHARS = 1000
NAME_TAKEN = "PodNameTaken"
NODE_LOST = "NodeLost"
QUOTA_EXCEEDED = "QuotaExceeded"


class ConditionContent(NamedTuple):
    """The content of a condition."""

    status: ConditionStatus
    reason: str
    message: str


def status_of(
    session: AgentSession, pod: PodState | None, *, now: datetime, problem: PodProblem | None = None
) -> AgentSessionStatus:
    """The status of `session` with the pod `pod`. `problem` replaces the pod's own problem."""
    problem = problem or (pod.problem if pod else None)
    contents: dict[ConditionType, ConditionContent] = {
        "PodScheduled": _find_scheduled(session, pod, problem),
        "SkillsSynced": _find_skills(session, pod, problem),
        "VNCReady": _find_screen(session, pod),
        "Ready": _find_ready(session, pod, problem),
    }
    conditions = [_build_condition(session, kind, content, now=now) for kind, content in contents.items()]
    is_ours = problem is None or problem.reason != NAME_TAKEN
    current = pod if pod is not None and pod.deleted_at is None and is_ours else None
    return AgentSessionStatus(
        observed_generation=session.generation,
        phase=phase_of(conditions),
        pod_name=current.name if current else None,
        pod_uid=current.uid if current else None,
        pod_ip=current.ip if current else None,
        gate_port=names.GATE_PORT if current else None,
        failures=session.status.failures,
        last_failure_time=session.status.last_failure_time,
        conditions=conditions,
    )


def phase_of(conditions: list[Condition]) -> Phase:
    (ready,) = [condition for condition in conditions if condition.type == "Ready"]
    if ready.status == "True":
        return "Running"
    if ready.reason in ("Suspended", "Suspending"):
        return "Suspended"
    return "Starting" if ready.reason in ("Starting", "PodTerminating") else "Failed"


def _build_condition(
    session: AgentSession, kind: ConditionType, content: ConditionContent, *, now: datetime
) -> Condition:
    """`lastTransitionTime` changes only when `status` changes."""
    before = session.status.condition(kind)
    is_same = before is not None and before.status == content.status
    return Condition(
        type=kind,
        status=content.status,
        reason=content.reason,
        message=content.message[:MAX_MESSAGE_CHARS],
        last_transition_time=before.last_transition_time if before and is_same else now.replace(microsecond=0),
        observed_generation=session.generation,
    )


def _find_absent(session: AgentSession, pod: PodState | None) -> ConditionContent | None:
    """The content of every condition while the session has no pod that it can use."""
    if session.spec.desired_state is DesiredState.SUSPENDED:
        if pod is not None:
            return ConditionContent("False", "Suspending", "The sandbox is being stopped")
        return ConditionContent("False", "Suspended", "The session is suspended and has no sandbox")
    if pod is None:
        return ConditionContent("False", "Starting", "The pod is being created")
    if pod.deleted_at is not None:
        return ConditionContent("False", "PodTerminating", "The previous pod is terminating; a new pod follows")
    return None


def _find_ready(session: AgentSession, pod: PodState | None, problem: PodProblem | None) -> ConditionContent:
    if problem is not None and session.spec.desired_state is DesiredState.RUNNING:
        return ConditionContent("False", problem.reason, problem.message)
    if (absent := _find_absent(session, pod)) is not None:
        return absent
    if pod is not None and pod.is_ready and pod.ip:
        return ConditionContent("True", "SandboxReady", "The sandbox accepts calls")
    return ConditionContent("False", "Starting", "The pod is starting")


def _find_scheduled(session: AgentSession, pod: PodState | None, problem: PodProblem | None) -> ConditionContent:
    if (absent := _find_absent(session, pod)) is not None:
        return absent
    if pod is not None and pod.is_scheduled:
        return ConditionContent("True", "Scheduled", "The pod is assigned to a node")
    if problem is not None and problem.reason == "Unschedulable":
        return ConditionContent("False", problem.reason, problem.message)
    return ConditionContent("False", "Starting", "The pod is not assigned to a node yet")


def _find_skills(session: AgentSession, pod: PodState | None, problem: PodProblem | None) -> ConditionContent:
    if (absent := _find_absent(session, pod)) is not None:
        return absent
    state = pod.skills if pod else "syncing"
    if state == "none":
        return ConditionContent("True", "NoSkills", "The session has no initial skills")
    if state == "synced":
        return ConditionContent("True", "Synced", "The initial skills are in the sandbox")
    if state == "failed":
        message = problem.message if problem else "The initial skills could not be fetched"
        return ConditionContent("False", "SkillsFailed", message)
    return ConditionContent("False", "Starting", "The initial skills are being fetched")


def _find_screen(session: AgentSession, pod: PodState | None) -> ConditionContent:
    if (absent := _find_absent(session, pod)) is not None:
        return absent
    if pod is not None and pod.has_screen:
        return ConditionContent("True", "ScreenUp", "The screen is running")
    return ConditionContent("False", "Starting", "The screen is starting")
