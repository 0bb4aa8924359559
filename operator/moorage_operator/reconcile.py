"""Reconciles one session: observe, decide, act, then write the status once if it changed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from moorage_crds.types import AgentSession, AgentSessionStatus
from moorage_kube.client import KubeError
from moorage_operator.cluster import Cluster
from moorage_operator.conditions import QUOTA_EXCEEDED, status_of
from moorage_operator.decisions import Act, decide
from moorage_operator.sandbox_pod.manifest import build_labels, build_pod
from moorage_operator.sandbox_pod.settings import PodSettings
from moorage_operator.sandbox_pod.state import PodProblem, PodState


async def reconcile(name: str, *, cluster: Cluster, settings: PodSettings, now: Callable[[], datetime]) -> float | None:
    """Make the cluster hold what the session asks for, then report what it holds.

    Safe at any time and any number of times. Returns after how many seconds the session needs another call although
    nothing else happens, or None. Raises KubeError when the session must be reconciled again.
    """
    session, pod = cluster.store.sessions.get(name), cluster.store.pods.get(name)
    if session is None:
        return None  # the garbage collector deletes its pod
    decision = decide(session, pod, now=now())
    if decision.act is Act.CREATE_POD:
        # Read again: a watch can miss that the session was deleted, and then no one would delete the new pod.
        await cluster.refresh(name)
        session, pod = cluster.store.sessions.get(name), cluster.store.pods.get(name)
        if session is None:
            return None
        decision = decide(session, pod, now=now())
    try:
        await _act(decision.act, session, pod, cluster=cluster, settings=settings)
        waits = [decision.again_after_seconds]
        if is_different(session.status, decision.status):
            if decision.quiet_seconds > 0:
                waits.append(decision.quiet_seconds)
            else:
                await cluster.write_status(session, decision.status)
    except KubeError as error:
        if error.status in (404, 409):  # what we know is outdated
            await cluster.refresh(name)
        elif decision.act is Act.CREATE_POD and (problem := find_refusal(error)) is not None:
            refused = status_of(session, None, now=now(), problem=problem)
            if is_different(session.status, refused):
                await cluster.write_status(session, refused)
        raise
    return min((wait for wait in waits if wait is not None), default=None)


async def _act(
    act: Act, session: AgentSession, pod: PodState | None, *, cluster: Cluster, settings: PodSettings
) -> None:
    match act:
        case Act.CREATE_POD:
            await cluster.create_pod(build_pod(session, settings=settings))
        case Act.DELETE_POD if pod is not None:
            await cluster.delete_pod(pod)
        case Act.FORCE_DELETE_POD if pod is not None:
            await cluster.delete_pod(pod, is_forced=True)
        case Act.LABEL_POD if pod is not None:
            await cluster.label_pod(pod, build_labels(session))
        case _:
            pass


def find_refusal(error: KubeError) -> PodProblem | None:
    """Why the API server refuses to create the pod: a quota, a policy or a webhook. None for any other error."""
    is_webhook_down = error.reason == "InternalError"
    if not is_webhook_down and error.status not in (400, 403, 422):
        return None
    reason = QUOTA_EXCEEDED if "exceeded quota" in str(error) else "PodRefused"
    return PodProblem(reason, f"The cluster refuses to create the pod: {error}")


def is_different(before: AgentSessionStatus, after: AgentSessionStatus) -> bool:
    """Whether anything differs besides the observed generation, which alone is not worth a write."""
    return _without_generation(before) != _without_generation(after)


def _without_generation(status: AgentSessionStatus) -> AgentSessionStatus:
    conditions = [condition.model_copy(update={"observed_generation": None}) for condition in status.conditions]
    return status.model_copy(update={"observed_generation": None, "conditions": conditions})
