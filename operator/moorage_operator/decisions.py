"""What to do about a session: a pure function of the resource, its pod and the time. Nothing else is remembered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from moorage_common.backoff import Backoff
from moorage_crds.types import AgentSession, AgentSessionStatus, DesiredState
from moorage_operator.children.pod import pod_labels
from moorage_operator.conditions import NAME_TAKEN, NODE_LOST, status_of
from moorage_operator.pods import Pod, Trouble

NEW_POD_BACKOFF = Backoff(10.0, 300.0)
STEADY_SECONDS = 120
"""A pod that was ready for so long did not fail: counting begins anew."""
LOST_SECONDS = 30
"""A pod that is still there so long after it should have ended is on a node that is gone."""
QUIET_SECONDS = 5
"""A start that goes well is written down once, when it is done, or when it takes longer than this."""


class Act(StrEnum):
    NOTHING = "nothing"
    CREATE_POD = "create pod"
    DELETE_POD = "delete pod"
    DROP_POD = "drop pod"
    """Without waiting for its node."""
    LABEL_POD = "label pod"
    DELETE_SESSION = "delete session"


@dataclass(frozen=True)
class Decision:
    """`status` is what will be true once `act` is done. `again_after_seconds`: when time alone changes something."""

    act: Act
    status: AgentSessionStatus
    again_after_seconds: float | None = None
    quiet_seconds: float = 0
    """For so long this need not be written, unless something else changes."""


@dataclass
class _Times:
    now: datetime
    waits: list[float] = field(default_factory=list)

    def has_passed(self, moment: datetime) -> bool:
        """Whether it is after `moment`; if not, we have to look again then."""
        left = (moment - self.now).total_seconds()
        if left > 0:
            self.waits.append(left)
        return left <= 0

    @property
    def next(self) -> float | None:
        return min(self.waits, default=None)


def decide(session: AgentSession, pod: Pod | None, *, now: datetime) -> Decision:
    times = _Times(now)
    if session.deleted_at is not None:
        return Decision(Act.NOTHING, session.status)  # the garbage collector ends the pod
    if pod is not None and pod.owner_uid != session.uid:
        return _not_ours(session, pod, times)
    if pod is not None and pod.deleted_at is not None:
        return _ending(session, pod, pod.deleted_at, times)
    if session.spec.desired_state is DesiredState.SUSPENDED:
        return _suspended(session, pod, times)
    if pod is None:
        return _absent(session, times)
    if pod.trouble is not None and pod.trouble.needs_new_pod:
        failed = _counted(session, now)
        return Decision(Act.DELETE_POD, status_of(failed, pod, now=now))
    return _running(session, pod, times)


def _counted(session: AgentSession, now: datetime) -> AgentSession:
    failures = {"failures": (session.status.failures or 0) + 1, "last_failure_time": now.replace(microsecond=0)}
    return session.model_copy(update={"status": session.status.model_copy(update=failures)})


def _calmed(session: AgentSession) -> AgentSession:
    steady = session.status.model_copy(update={"failures": None, "last_failure_time": None})
    return session.model_copy(update={"status": steady})


def _not_ours(session: AgentSession, pod: Pod, times: _Times) -> Decision:
    """The pod of an earlier resource of this session ends with that one: it is waited for. Anybody else's stays."""
    if session.spec.desired_state is DesiredState.SUSPENDED:
        return Decision(Act.NOTHING, status_of(session, None, now=times.now))
    if pod.owner_uid is not None and pod.session_label == session.spec.session_id:
        if pod.deleted_at is not None:
            return _ending(session, pod, pod.deleted_at, times)
        ending = replace(pod, deleted_at=times.now)
        return Decision(Act.NOTHING, status_of(session, ending, now=times.now), quiet_seconds=QUIET_SECONDS)
    trouble = Trouble(NAME_TAKEN, f"A pod {pod.name} is there that belongs to somebody else")
    return Decision(Act.NOTHING, status_of(session, pod, now=times.now, trouble=trouble))


def _ending(session: AgentSession, pod: Pod, deleted_at: datetime, times: _Times) -> Decision:
    if times.has_passed(deleted_at + timedelta(seconds=LOST_SECONDS)):
        trouble = Trouble(NODE_LOST, "The node of the pod does not answer")
        failed = _counted(session, times.now)
        return Decision(Act.DROP_POD, status_of(failed, pod, now=times.now, trouble=trouble))
    before = session.status.condition("Ready")
    kept = _kept_trouble(session) if before is not None and before.reason != "SandboxReady" else None
    status = status_of(session, pod, now=times.now, trouble=kept)
    return Decision(Act.NOTHING, status, times.next, quiet_seconds=QUIET_SECONDS)


def _kept_trouble(session: AgentSession) -> Trouble | None:
    """While a failed pod is being replaced, what was wrong with it stays readable."""
    ready = session.status.condition("Ready")
    if ready is None or not session.status.failures or session.status.phase != "Failed":
        return None
    return Trouble(ready.reason, ready.message)


def _suspended(session: AgentSession, pod: Pod | None, times: _Times) -> Decision:
    status = status_of(_calmed(session), pod, now=times.now)
    if pod is not None:
        return Decision(Act.DELETE_POD, status, quiet_seconds=QUIET_SECONDS)
    ttl, ready = session.spec.ttl_seconds_after_suspended, session.status.condition("Ready")
    if ttl is not None and ready is not None and ready.reason == "Suspended":
        since = max(ready.last_transition_time, session.created_at)
        if times.has_passed(since + timedelta(seconds=ttl)):
            return Decision(Act.DELETE_SESSION, status)
    return Decision(Act.NOTHING, status, times.next, quiet_seconds=_left(session.created_at, times.now))


def _left(since: datetime, now: datetime) -> float:
    """Of the quiet seconds. None where `since` is far from now, by a clock that is not ours."""
    left = QUIET_SECONDS - (now - since).total_seconds()
    return left if 0 < left <= 2 * QUIET_SECONDS else 0.0


def _absent(session: AgentSession, times: _Times) -> Decision:
    failures, last = session.status.failures, session.status.last_failure_time
    is_past = last is not None and last <= times.now  # else another replica's clock is wrong, or ours
    pause = timedelta(seconds=NEW_POD_BACKOFF.pause_seconds(failures or 1))
    if failures and last and is_past and not times.has_passed(last + pause):
        return Decision(
            Act.NOTHING, status_of(session, None, now=times.now, trouble=_kept_trouble(session)), times.next
        )
    return Decision(Act.CREATE_POD, status_of(session, None, now=times.now), quiet_seconds=QUIET_SECONDS)


def _running(session: AgentSession, pod: Pod, times: _Times) -> Decision:
    ready = session.status.condition("Ready")
    was_ready = session.status.failures and pod.is_ready and ready is not None and ready.status == "True"
    if was_ready and ready and times.has_passed(ready.last_transition_time + timedelta(seconds=STEADY_SECONDS)):
        session = _calmed(session)
    status = status_of(session, pod, now=times.now)
    wanted = pod_labels(session)
    act = Act.NOTHING if wanted.items() <= pod.labels.items() else Act.LABEL_POD
    quiet = 0.0
    now_ready = status.condition("Ready")
    if now_ready is not None and now_ready.reason == "Starting":
        quiet = _left(pod.created_at, times.now)
    return Decision(act, status, times.next, quiet_seconds=quiet)
