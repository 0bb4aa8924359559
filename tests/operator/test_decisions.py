"""The decisions about a session as a table: without a cluster, and time is a value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from moorage_crds.types import AgentSession, AgentSessionStatus
from moorage_operator.conditions import status_of
from moorage_operator.decisions import NEW_POD_BACKOFF, Act, decide
from moorage_operator.reconcile import is_different
from moorage_operator.sandbox_pod.manifest import build_labels
from moorage_operator.sandbox_pod.state import PodProblem, PodState

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SESSION_ID = "0198b3a2-0000-7000-8000-000000000001"


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def session(
    *, status: AgentSessionStatus | None = None, deleted_at: datetime | None = None, **spec: Any
) -> AgentSession:
    return AgentSession(
        namespace="n",
        name="s",
        uid="owner",
        generation=3,
        created_at=ago(1000),
        deleted_at=deleted_at,
        spec={"sessionId": SESSION_ID, "ownerId": "alice", **spec},
        status=status or AgentSessionStatus(),
    )


def pod(**changes: Any) -> PodState:
    default = PodState(
        name="s",
        uid=str(uuid4()),
        version=1,
        owner_uid="owner",
        labels=build_labels(session()),
        created_at=ago(60),
        deleted_at=None,
        ip="10.0.0.1",
        is_scheduled=True,
        skills="none",
        has_screen=True,
        is_ready=True,
        problem=None,
    )
    return PodState(**{**default.__dict__, **changes})


def suspended_since(seconds: float) -> AgentSessionStatus:
    return status_of(session(), None, now=ago(seconds))


def failures(times: int, seconds: float) -> AgentSessionStatus:
    return AgentSessionStatus(failures=times, last_failure_time=ago(seconds))


RUNNING: dict[str, Any] = {"desiredState": "Running"}
EVICTED = PodProblem("Evicted", "out of disk", needs_new_pod=True)

CASES: dict[str, tuple[AgentSession, PodState | None, Act, str | None]] = {
    "suspended, without a pod": (session(), None, Act.NOTHING, "Suspended"),
    "suspended, with a pod": (session(), pod(), Act.DELETE_POD, "Suspending"),
    "running, without a pod": (session(**RUNNING), None, Act.CREATE_POD, "Starting"),
    "running, with a ready pod": (session(**RUNNING), pod(), Act.NOTHING, "SandboxReady"),
    "the pod starts": (session(**RUNNING), pod(is_ready=False), Act.NOTHING, "Starting"),
    "the pod has no address": (session(**RUNNING), pod(ip=None), Act.NOTHING, "Starting"),
    "the pod lost its labels": (session(**RUNNING), pod(labels={}), Act.LABEL_POD, "SandboxReady"),
    "the pod failed": (session(**RUNNING), pod(problem=EVICTED), Act.DELETE_POD, "Evicted"),
    "the pod waits for a node": (
        session(**RUNNING),
        pod(is_scheduled=False, is_ready=False, problem=PodProblem("Unschedulable", "full")),
        Act.NOTHING,
        "Unschedulable",
    ),
    "the pod terminates": (session(**RUNNING), pod(deleted_at=ago(1)), Act.NOTHING, "PodTerminating"),
    "the pod does not terminate": (session(**RUNNING), pod(deleted_at=ago(31)), Act.FORCE_DELETE_POD, "NodeLost"),
    "suspended, and the pod does not terminate": (
        session(),
        pod(deleted_at=ago(31)),
        Act.FORCE_DELETE_POD,
        "Suspending",
    ),
    "the pod belongs to something else": (
        session(**RUNNING),
        pod(owner_uid="other", labels={}),
        Act.NOTHING,
        "PodNameTaken",
    ),
    "the pod belongs to an earlier resource": (
        session(**RUNNING),
        pod(owner_uid="other"),
        Act.NOTHING,
        "PodTerminating",
    ),
    "the pod of an earlier resource terminates": (
        session(**RUNNING),
        pod(owner_uid="other", deleted_at=ago(1)),
        Act.NOTHING,
        "PodTerminating",
    ),
    "the pod of an earlier resource does not terminate": (
        session(**RUNNING),
        pod(owner_uid="other", deleted_at=ago(31)),
        Act.FORCE_DELETE_POD,
        "NodeLost",
    ),
    "the pod has no owner": (session(**RUNNING), pod(owner_uid=None), Act.NOTHING, "PodNameTaken"),
    "the last pod failed a moment ago": (session(status=failures(1, 9), **RUNNING), None, Act.NOTHING, "Starting"),
    "the last pod failed a while ago": (
        session(status=failures(1, 11), **RUNNING),
        None,
        Act.CREATE_POD,
        "Starting",
    ),
    "pods fail again and again": (session(status=failures(4, 79), **RUNNING), None, Act.NOTHING, "Starting"),
    "the last pod failed in an hour, by the clock of another replica": (
        session(status=failures(1, -3600), **RUNNING),
        None,
        Act.CREATE_POD,
        "Starting",
    ),
    "the session is being deleted": (session(deleted_at=ago(1), **RUNNING), pod(), Act.NOTHING, None),
    "suspended for hours": (
        session(status=suspended_since(9999)),
        None,
        Act.NOTHING,
        "Suspended",
    ),
}


@pytest.mark.parametrize(("seen", "its_pod", "act", "reason"), CASES.values(), ids=CASES.keys())
def test_the_observed_state_decides(seen: AgentSession, its_pod: PodState | None, act: Act, reason: str | None) -> None:
    decision = decide(seen, its_pod, now=NOW)
    ready = decision.status.condition("Ready")
    assert (decision.act, ready.reason if ready else None) == (act, reason)


@pytest.mark.parametrize("name", CASES)
def test_reconciling_again_changes_no_status(name: str) -> None:
    seen, its_pod, act, _ = CASES[name]
    first = decide(seen, its_pod, now=NOW).status
    later = decide(seen.model_copy(update={"status": first}), its_pod, now=NOW + timedelta(milliseconds=10))
    if act in (Act.NOTHING, Act.LABEL_POD):
        assert not is_different(first, later.status)


def test_a_session_is_reconciled_again_when_time_alone_changes_its_decision() -> None:
    waits = decide(session(status=failures(2, 5), **RUNNING), None, now=NOW).again_after_seconds
    assert waits == 15
    assert decide(session(**RUNNING), pod(deleted_at=ago(10)), now=NOW).again_after_seconds == 20


@pytest.mark.parametrize(("age", "seconds"), [(2, 3), (6, 0), (-2, 7), (-600, 0)])
def test_a_starting_status_is_written_later_unless_the_clocks_differ(age: float, seconds: float) -> None:
    starting = pod(is_ready=False, created_at=ago(age))
    assert decide(session(**RUNNING), starting, now=NOW).quiet_seconds == seconds


def test_the_pause_before_a_new_pod_doubles_up_to_a_limit() -> None:
    assert [NEW_POD_BACKOFF.pause_seconds(n) for n in (1, 2, 3, 4, 5, 6, 60)] == [10, 20, 40, 80, 160, 300, 300]


def test_failures_are_reset_after_a_pod_was_ready_for_two_minutes() -> None:
    one = session(status=failures(3, 500), **RUNNING)
    ready = status_of(one, pod(), now=ago(121))
    assert decide(one.model_copy(update={"status": ready}), pod(), now=NOW).status.failures is None
    fresh = status_of(one, pod(), now=ago(10))
    assert decide(one.model_copy(update={"status": fresh}), pod(), now=NOW).status.failures == 3


def test_the_transition_time_stays_until_the_status_changes() -> None:
    starting = status_of(session(**RUNNING), pod(is_ready=False), now=ago(30))
    slower = status_of(session(status=starting, **RUNNING), pod(is_ready=False, ip=None), now=ago(20))
    up = status_of(session(status=slower, **RUNNING), pod(), now=NOW)
    times = [status.condition("Ready") for status in (starting, slower, up)]
    assert [one.last_transition_time if one else None for one in times] == [ago(30), ago(30), NOW]
