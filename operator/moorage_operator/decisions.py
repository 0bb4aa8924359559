"""Decides what to do about a session: a pure function of the resource, its pod and the time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from moorage_common.backoff import Backoff
from moorage_crds.types import AgentSession, AgentSessionStatus, DesiredState
from moorage_operator.conditions import NAME_TAKEN, NODE_LOST, status_of
from moorage_operator.sandbox_pod.manifest import build_labels
from moorage_operator.sandbox_pod.state import PodProblem, PodState

NEW_POD_BACKOFF = Backoff(10.0, 300.0)
"""The pause before a new pod, after consecutive pods have failed."""
STEADY_SECONDS = 120
"""After a pod has been ready for so long, its session's count of failures starts again at zero."""
LOST_SECONDS = 30
"""A pod that still exists so long after it should have ended is on a node that no longer responds."""
QUIET_SECONDS = 5
"""A start that succeeds sooner than this costs one status write, at its end."""


class Act(StrEnum):
    NOTHING = "nothing"
    CREATE_POD = "create pod"
    DELETE_POD = "delete pod"
    FORCE_DELETE_POD = "force delete pod"
    """Delete the pod without waiting for its node."""
    LABEL_POD = "label pod"


@dataclass(frozen=True)
class Decision:
    act: Act
    status: AgentSessionStatus
    """The status after `act` is done."""
    again_after_seconds: float | None = None
    """When the passing of time alone changes the decision; None if it never does."""
    quiet_seconds: float = 0
    """For so long the status does not have to be written, unless something else changes."""


@dataclass
class _Deadlines:
    """Compares moments with now, and remembers the next moment that lies ahead."""

    now: datetime
    waits: list[float] = field(default_factory=list)

    def has_passed(self, moment: datetime) -> bool:
        left = (moment - self.now).total_seconds()
        if left > 0:
            self.waits.append(left)
        return left <= 0

    @property
    def next_seconds(self) -> float | None:
        return min(self.waits, default=None)


def decide(session: AgentSession, pod: PodState | None, *, now: datetime) -> Decision:
    deadlines = _Deadlines(now)
    if session.deleted_at is not None:
        return Decision(Act.NOTHING, session.status)  # the garbage collector deletes the pod
    if pod is not None and pod.owner_uid != session.uid:
        return _decide_foreign_pod(session, pod, deadlines)
    if pod is not None and pod.deleted_at is not None:
        return _decide_terminating_pod(session, pod, pod.deleted_at, deadlines)
    if session.spec.desired_state is DesiredState.SUSPENDED:
        return _decide_suspended(session, pod, now)
    if pod is None:
        return _decide_missing_pod(session, deadlines)
    if pod.problem is not None and pod.problem.needs_new_pod:
        failed = _count_failure(session, now)
        return Decision(Act.DELETE_POD, status_of(failed, pod, now=now))
    return _decide_running_pod(session, pod, deadlines)


def _count_failure(session: AgentSession, now: datetime) -> AgentSession:
    failures = {"failures": (session.status.failures or 0) + 1, "last_failure_time": now.replace(microsecond=0)}
    return session.model_copy(update={"status": session.status.model_copy(update=failures)})


def _reset_failures(session: AgentSession) -> AgentSession:
    status = session.status.model_copy(update={"failures": None, "last_failure_time": None})
    return session.model_copy(update={"status": status})


def _decide_foreign_pod(session: AgentSession, pod: PodState, deadlines: _Deadlines) -> Decision:
    """The pod has the session's name, but this resource does not own it.

    The pod of an earlier resource of the same session is being deleted with that resource, so we wait for its end. Any
    other pod is left alone and reported.
    """
    now = deadlines.now
    if session.spec.desired_state is DesiredState.SUSPENDED:
        return Decision(Act.NOTHING, status_of(session, None, now=now))
    if pod.owner_uid is not None and pod.session_label == session.spec.session_id:
        if pod.deleted_at is not None:
            return _decide_terminating_pod(session, pod, pod.deleted_at, deadlines)
        terminating = replace(pod, deleted_at=now)
        return Decision(Act.NOTHING, status_of(session, terminating, now=now), quiet_seconds=QUIET_SECONDS)
    message = f"A pod named {pod.name} exists that does not belong to this session. Delete or rename that pod."
    problem = PodProblem(NAME_TAKEN, message)
    return Decision(Act.NOTHING, status_of(session, pod, now=now, problem=problem))


def _decide_terminating_pod(
    session: AgentSession, pod: PodState, deleted_at: datetime, deadlines: _Deadlines
) -> Decision:
    now = deadlines.now
    if deadlines.has_passed(deleted_at + timedelta(seconds=LOST_SECONDS)):
        problem = PodProblem(NODE_LOST, "The node of the pod does not respond")
        failed = _count_failure(session, now)
        return Decision(Act.FORCE_DELETE_POD, status_of(failed, pod, now=now, problem=problem))
    before = session.status.condition("Ready")
    known = _known_problem(session) if before is not None and before.reason != "SandboxReady" else None
    status = status_of(session, pod, now=now, problem=known)
    return Decision(Act.NOTHING, status, deadlines.next_seconds, quiet_seconds=QUIET_SECONDS)


def _known_problem(session: AgentSession) -> PodProblem | None:
    """The problem of the previous pod: the status keeps showing it while that pod is being replaced."""
    ready = session.status.condition("Ready")
    if ready is None or not session.status.failures or session.status.phase != "Failed":
        return None
    return PodProblem(ready.reason, ready.message)


def _decide_suspended(session: AgentSession, pod: PodState | None, now: datetime) -> Decision:
    status = status_of(_reset_failures(session), pod, now=now)
    if pod is not None:
        return Decision(Act.DELETE_POD, status, quiet_seconds=QUIET_SECONDS)
    return Decision(Act.NOTHING, status, quiet_seconds=_quiet_seconds_left(session.created_at, now))


def _quiet_seconds_left(since: datetime, now: datetime) -> float:
    """Seconds left of QUIET_SECONDS since `since`; 0 when they have passed, or when `since` is far in the future."""
    left = QUIET_SECONDS - (now - since).total_seconds()
    return left if 0 < left <= 2 * QUIET_SECONDS else 0.0


def _decide_missing_pod(session: AgentSession, deadlines: _Deadlines) -> Decision:
    now = deadlines.now
    failures, last = session.status.failures, session.status.last_failure_time
    is_past = last is not None and last <= now  # a time in the future comes from a replica whose clock differs
    pause = timedelta(seconds=NEW_POD_BACKOFF.pause_seconds(failures or 1))
    if failures and last and is_past and not deadlines.has_passed(last + pause):
        status = status_of(session, None, now=now, problem=_known_problem(session))
        return Decision(Act.NOTHING, status, deadlines.next_seconds)
    return Decision(Act.CREATE_POD, status_of(session, None, now=now), quiet_seconds=QUIET_SECONDS)


def _decide_running_pod(session: AgentSession, pod: PodState, deadlines: _Deadlines) -> Decision:
    now, ready = deadlines.now, session.status.condition("Ready")
    was_ready = session.status.failures and pod.is_ready and ready is not None and ready.status == "True"
    if was_ready and ready and deadlines.has_passed(ready.last_transition_time + timedelta(seconds=STEADY_SECONDS)):
        session = _reset_failures(session)
    status = status_of(session, pod, now=now)
    has_labels = build_labels(session).items() <= pod.labels.items()
    ready_now = status.condition("Ready")
    is_starting = ready_now is not None and ready_now.reason == "Starting"
    return Decision(
        Act.NOTHING if has_labels else Act.LABEL_POD,
        status,
        deadlines.next_seconds,
        quiet_seconds=_quiet_seconds_left(pod.created_at, now) if is_starting else 0.0,
    )
