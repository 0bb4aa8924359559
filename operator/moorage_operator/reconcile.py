"""One pass over one session: observe, decide, act, then write the status, once, when it changed."""

from __future__ import annotations

from moorage_crds.types import AgentSession, AgentSessionStatus
from moorage_kube.client import KubeError
from moorage_operator.children.pod import pod_labels, sandbox_pod
from moorage_operator.clock import Clock
from moorage_operator.cluster import Cluster
from moorage_operator.conditions import QUOTA_EXCEEDED, status_of
from moorage_operator.decisions import Act, Decision, decide
from moorage_operator.pods import Pod, Trouble
from moorage_operator.settings import PodSettings


async def reconcile(name: str, *, cluster: Cluster, settings: PodSettings, now: Clock) -> float | None:
    """Make the cluster hold what the session asks for, then report what it holds.

    Safe at any time and any number of times. Returns after how many seconds time alone asks for another pass. Raises
    KubeError: then too, try again.
    """
    session, pod = cluster.store.sessions.get(name), cluster.store.pods.get(name)
    if session is None:
        return None  # the garbage collector takes what it owned
    decision = decide(session, pod, now=now())
    if decision.act is Act.CREATE_POD:
        # A watch that was cut may not have told us that the session is gone; its pod would be nobody's
        await cluster.look(name)
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
            elif decision.act is not Act.DELETE_SESSION:
                await cluster.write_status(session, decision.status)
    except KubeError as error:
        if error.status in (404, 409):  # something is not as we thought
            await cluster.look(name)
        elif decision.act is Act.CREATE_POD and (trouble := refusal(error)) is not None:
            refused = status_of(session, None, now=now(), trouble=trouble)
            if is_different(session.status, refused):
                await cluster.write_status(session, refused)
        raise
    return min((wait for wait in waits if wait is not None), default=None)


async def _act(act: Act, session: AgentSession, pod: Pod | None, *, cluster: Cluster, settings: PodSettings) -> None:
    match act:
        case Act.CREATE_POD:
            await cluster.create_pod(sandbox_pod(session, settings=settings))
        case Act.DELETE_POD if pod is not None:
            await cluster.delete_pod(pod)
        case Act.DROP_POD if pod is not None:
            await cluster.delete_pod(pod, at_once=True)
        case Act.LABEL_POD if pod is not None:
            await cluster.label_pod(pod, pod_labels(session))
        case Act.DELETE_SESSION:
            await cluster.delete_session(session)
        case _:
            pass


def refusal(error: KubeError) -> Trouble | None:
    """Why the cluster makes no pod: a quota, a policy, a webhook. None where it did not get as far as to look at it."""
    is_webhook_away = error.reason == "InternalError"
    if not is_webhook_away and error.status not in (400, 403, 422):
        return None
    reason = QUOTA_EXCEEDED if "exceeded quota" in str(error) else "PodRefused"
    return Trouble(reason, f"The cluster makes no pod: {error}")


def is_different(before: AgentSessionStatus, after: AgentSessionStatus) -> bool:
    """Whether anything but the generation that was looked at differs; that alone is not worth a write."""
    return _told(before) != _told(after)


def _told(status: AgentSessionStatus) -> AgentSessionStatus:
    plain = [one.model_copy(update={"observed_generation": None}) for one in status.conditions]
    return status.model_copy(update={"observed_generation": None, "conditions": plain})


__all__ = ["Decision", "is_different", "reconcile"]
