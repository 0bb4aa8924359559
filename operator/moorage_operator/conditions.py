"""A pod as the conditions of its session. Pure; `phase_of` is the one place that makes one word of them."""

from __future__ import annotations

from datetime import datetime

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
from moorage_operator.pods import Pod, Trouble

MAX_MESSAGE_CHARS = 1000
NAME_TAKEN = "PodNameTaken"
NODE_LOST = "NodeLost"
QUOTA_EXCEEDED = "QuotaExceeded"

Said = tuple[ConditionStatus, str, str]
"""Status, reason and message."""


def status_of(
    session: AgentSession, pod: Pod | None, *, now: datetime, trouble: Trouble | None = None
) -> AgentSessionStatus:
    """What is to be told of `session` whose pod is `pod`. `trouble` is what the pod itself does not say."""
    trouble = trouble or (pod.trouble if pod else None)
    said: dict[ConditionType, Said] = {
        "PodScheduled": _scheduled(session, pod, trouble),
        "SkillsSynced": _skills(session, pod, trouble),
        "VNCReady": _screen(session, pod),
        "Ready": _ready(session, pod, trouble),
    }
    conditions = [_condition(session, kind, *said[kind], now=now) for kind in said]
    is_there = pod is not None and pod.deleted_at is None and (trouble is None or trouble.reason != NAME_TAKEN)
    return AgentSessionStatus(
        observed_generation=session.generation,
        phase=phase_of(session, conditions),
        pod_name=pod.name if pod and is_there else None,
        pod_uid=pod.uid if pod and is_there else None,
        pod_ip=pod.ip if pod and is_there else None,
        gate_port=names.GATE_PORT if is_there else None,
        failures=session.status.failures,
        last_failure_time=session.status.last_failure_time,
        conditions=conditions,
    )


def phase_of(session: AgentSession, conditions: list[Condition]) -> Phase:
    (ready,) = [one for one in conditions if one.type == "Ready"]
    if session.deleted_at is not None:
        return "Terminating"
    if ready.status == "True":
        return "Running"
    if ready.reason in ("Suspended", "Suspending"):
        return "Suspended"
    return "Starting" if ready.reason in ("Starting", "PodTerminating") else "Failed"


def _condition(
    session: AgentSession, kind: ConditionType, status: ConditionStatus, reason: str, message: str, *, now: datetime
) -> Condition:
    """`lastTransitionTime` moves only when `status` changes."""
    before = session.status.condition(kind)
    since = before.last_transition_time if before and before.status == status else now.replace(microsecond=0)
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message[:MAX_MESSAGE_CHARS],
        last_transition_time=since,
        observed_generation=session.generation,
    )


def _absent(session: AgentSession, pod: Pod | None) -> Said | None:
    if session.spec.desired_state is DesiredState.SUSPENDED:
        if pod is not None:
            return "False", "Suspending", "The sandbox is ending"
        return "False", "Suspended", "No sandbox is wanted"
    if pod is None:
        return "False", "Starting", "The pod is being made"
    if pod.deleted_at is not None:
        return "False", "PodTerminating", "The last pod is ending; a new one follows"
    return None


def _ready(session: AgentSession, pod: Pod | None, trouble: Trouble | None) -> Said:
    if trouble is not None and session.spec.desired_state is DesiredState.RUNNING:
        return "False", trouble.reason, trouble.message
    if (absent := _absent(session, pod)) is not None:
        return absent
    if pod is not None and pod.is_ready and pod.ip:
        return "True", "SandboxReady", "The sandbox answers"
    return "False", "Starting", "The pod is starting"


def _scheduled(session: AgentSession, pod: Pod | None, trouble: Trouble | None) -> Said:
    if (absent := _absent(session, pod)) is not None:
        return absent
    if pod is not None and pod.is_scheduled:
        return "True", "Scheduled", "A node runs the pod"
    if trouble is not None and trouble.reason == "Unschedulable":
        return "False", trouble.reason, trouble.message
    return "False", "Starting", "No node has the pod yet"


def _skills(session: AgentSession, pod: Pod | None, trouble: Trouble | None) -> Said:
    if (absent := _absent(session, pod)) is not None:
        return absent
    state = pod.skills if pod else "syncing"
    if state == "none":
        return "True", "NoSkills", "No skill has to be there from the start"
    if state == "synced":
        return "True", "Synced", "The initial skills are there"
    if state == "failed":
        return "False", "SkillsFailed", trouble.message if trouble else "The skills could not be fetched"
    return "False", "Starting", "The initial skills are being fetched"


def _screen(session: AgentSession, pod: Pod | None) -> Said:
    if (absent := _absent(session, pod)) is not None:
        return absent
    if pod is not None and pod.has_screen:
        return "True", "ScreenUp", "The screen runs"
    return "False", "Starting", "The screen is starting"
