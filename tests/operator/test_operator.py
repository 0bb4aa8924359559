"""A real operator process against a real API server; a stand-in for the kubelet sets the states of the pods."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moorage_crds import names
from moorage_kube.client import MERGE_PATCH, KubeError, Manifest
from support.kube import kubelet as words
from support.kube.control_plane import ControlPlane
from support.kube.kubelet import Behaviour, Kubelet, status, terminated, waiting
from support.kube.sessions import Sessions, writes_in
from support.waiting import HANG_SECONDS, until

pytestmark = pytest.mark.timeout(15 * 60)


async def test_a_session_gets_a_pod_and_loses_it_when_it_is_suspended_or_deleted(
    control_plane: ControlPlane, sessions: Sessions, kubelet: Kubelet, start_operator: Any
) -> None:
    await start_operator()
    name = await sessions.create()
    await sessions.patch(name, desiredState="Running")
    ready = await sessions.wait_for_condition(name, "SandboxReady")
    assert ready["status"] == "True"
    session, pod = await sessions.get(name), await sessions.pod(name)
    assert session is not None
    assert pod is not None
    assert session["status"] | {"conditions": []} == {
        "observedGeneration": session["metadata"]["generation"],
        "phase": "Running",
        "podName": name,
        "podUID": pod["metadata"]["uid"],
        "podIP": words.POD_IP,
        "gatePort": 8080,
        "conditions": [],
    }
    listed = control_plane.kubectl("get", "ags", "--namespace", sessions.namespace, "--no-headers").split()
    assert listed[:6] == [name, "Running", "True", "SandboxReady", "alice", name]

    await sessions.patch(name, desiredState="Suspended")
    await sessions.wait_for_condition(name, "Suspended")
    assert await sessions.pod(name) is None

    await sessions.patch(name, desiredState="Running")
    await sessions.wait_for_condition(name, "SandboxReady")
    await sessions.delete(name)

    async def is_gone() -> bool:
        return not await sessions.pods()

    await until(is_gone, "the pod goes with its session")


async def test_the_operator_writes_three_times_in_the_life_of_a_session(
    control_plane: ControlPlane, sessions: Sessions, kubelet: Kubelet, start_operator: Any
) -> None:
    """The api writes three times as well (create, run, delete). The aim is six writes in total."""
    operator = await start_operator()
    name = await sessions.create()
    await sessions.wait_for_condition(name, "Suspended")
    await sessions.patch(name, desiredState="Running")
    await sessions.wait_for_condition(name, "SandboxReady")
    await sessions.delete(name)

    async def is_gone() -> bool:
        return not await sessions.pods()

    await until(is_gone, "the pod goes with its session")
    assert await operator.metric("moorage_operator_writes_total") == 3
    ours = [(verb, kind) for user, verb, kind in writes_in(control_plane.audit_log, sessions.namespace)]
    assert ours.count(("create", "pods")) == 1
    assert ours.count(("patch", f"{names.PLURAL}/status")) == 2


FAILURES: dict[str, tuple[Behaviour, str, str]] = {
    "no node takes it": (lambda _: None, "Unschedulable", "Insufficient memory"),
    "an image is not there": (
        lambda pod: status(pod, phase="Pending", containers={"box": waiting("ImagePullBackOff", "no such image")}),
        "ImagePullFailed",
        "The image of the container box cannot be pulled: no such image",
    ),
    "a container can't start": (
        lambda pod: status(
            pod, phase="Pending", containers={"gate": waiting("CreateContainerConfigError", "no trust file")}
        ),
        "ContainerCannotStart",
        "The container gate cannot start: no trust file",
    ),
    "the box needs too much": (
        lambda pod: status(
            pod,
            containers={
                "box": {
                    **waiting("CrashLoopBackOff"),
                    "restartCount": 1,
                    "lastState": {"terminated": terminated(137, reason="OOMKilled")},
                }
            },
        ),
        "OutOfMemory",
        "exceeded its memory limit",
    ),
    "the vnc ends": (
        lambda pod: status(
            pod,
            containers={
                "vnc": {
                    **waiting("CrashLoopBackOff"),
                    "restartCount": 2,
                    "lastState": {"terminated": terminated(1)},
                }
            },
        ),
        "ContainerEnded",
        "The container vnc ended with exit code 1",
    ),
}


@pytest.mark.parametrize(("behave", "reason", "message"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_problem_of_a_pod_becomes_a_reason_and_the_pod_stays(
    sessions: Sessions, kubelet: Kubelet, start_operator: Any, behave: Behaviour, reason: str, message: str
) -> None:
    kubelet.behave = behave
    await start_operator()
    name = await sessions.create(desiredState="Running")
    condition = await sessions.wait_for_condition(name, reason)
    assert condition["status"] == "False"
    assert message in condition["message"]
    session = await sessions.get(name)
    assert session is not None
    assert session["status"]["phase"] == "Failed"
    pod = await sessions.pod(name)
    assert pod is not None
    await kubelet.show(name, words.running_status(pod))
    await sessions.wait_for_condition(name, "SandboxReady")
    assert len(kubelet.seen) == 1


async def test_skills_that_cannot_be_fetched_are_reported(
    sessions: Sessions, kubelet: Kubelet, start_operator: Any
) -> None:
    kubelet.behave = lambda pod: status(
        pod,
        phase="Pending",
        containers={
            "skills": {
                **waiting("CrashLoopBackOff"),
                "restartCount": 1,
                "lastState": {"terminated": terminated(1, message="pdf: the archive is not there (404)")},
            }
        },
    )
    await start_operator(MOORAGE_OPERATOR_POD__SKILLS_URL="http://api:8081/internal/skills")
    pin = {"id": "pdf", "digest": "sha256:" + "0" * 64, "phase": "initial"}
    name = await sessions.create(desiredState="Running", skills=[pin])
    assert "the archive is not there (404)" in (await sessions.wait_for_condition(name, "SkillsFailed"))["message"]
    assert (await sessions.condition(name, "SkillsSynced"))["status"] == "False"


REPLACED: dict[str, tuple[Behaviour, str]] = {
    "evicted": (
        lambda pod: status(pod, phase="Failed", reason="Evicted", message="The node was low on disk"),
        "Evicted",
    ),
    "its node shuts down": (lambda pod: status(pod, phase="Failed", reason="Terminated"), "NodeShutdown"),
    "failed": (lambda pod: status(pod, phase="Failed"), "PodFailed"),
    "it ends again and again": (
        lambda pod: status(
            pod,
            containers={
                "box": {
                    **waiting("CrashLoopBackOff"),
                    "restartCount": 4,
                    "lastState": {"terminated": terminated(1)},
                }
            },
        ),
        "CrashLooping",
    ),
}


@pytest.mark.parametrize(("behave", "reason"), REPLACED.values(), ids=REPLACED.keys())
async def test_a_pod_that_failed_is_replaced_after_a_pause(
    sessions: Sessions, kubelet: Kubelet, start_operator: Any, behave: Behaviour, reason: str
) -> None:
    await start_operator()
    name = await sessions.create(desiredState="Running")
    await sessions.wait_for_condition(name, "SandboxReady")
    pod = await sessions.pod(name)
    assert pod is not None
    failing = behave(pod)
    assert failing is not None
    await kubelet.show(name, failing)
    condition = await sessions.wait_for_condition(name, reason)
    assert condition["status"] == "False"
    failed = await sessions.get(name)
    assert failed is not None
    assert failed["status"]["failures"] == 1
    await sessions.wait_for_condition(name, "SandboxReady")
    replaced = await sessions.pod(name)
    assert replaced is not None
    assert replaced["metadata"]["uid"] != pod["metadata"]["uid"]


async def test_a_pod_that_was_deleted_by_hand_is_replaced_immediately(
    sessions: Sessions, kubelet: Kubelet, start_operator: Any
) -> None:
    await start_operator()
    name = await sessions.create(desiredState="Running")
    await sessions.wait_for_condition(name, "SandboxReady")
    before = await sessions.pod(name)
    await sessions.kube.request("DELETE", f"{sessions.pods_path}/{name}")

    async def is_another() -> bool:
        session, pod = await sessions.get(name), await sessions.pod(name)
        assert session is not None
        assert before is not None
        return (
            pod is not None
            and pod["metadata"]["uid"] != before["metadata"]["uid"]
            and session["status"].get("podUID") == pod["metadata"]["uid"]
        )

    await until(is_another, "another pod is there and reported")


@pytest.mark.parametrize("label", ["app.kubernetes.io/component", names.SESSION_LABEL])
async def test_removed_labels_are_restored(
    sessions: Sessions, kubelet: Kubelet, start_operator: Any, label: str
) -> None:
    """Network policies and our watch select pods by labels: for the watch, a pod without its label is deleted."""
    await start_operator()
    name = await sessions.create(desiredState="Running")
    await sessions.wait_for_condition(name, "SandboxReady")
    before = await sessions.pod(name)
    body = {"metadata": {"labels": {label: None}}}
    await sessions.kube.request("PATCH", f"{sessions.pods_path}/{name}", body=body, content_type=MERGE_PATCH)

    async def is_back() -> bool:
        pod = await sessions.pod(name)
        return pod is not None and pod["metadata"]["labels"] == (before or pod)["metadata"]["labels"]

    await until(is_back, "the label is back")


async def test_a_pod_of_that_name_that_is_not_ours_is_left_alone(
    sessions: Sessions, kubelet: Kubelet, start_operator: Any
) -> None:
    session_id = "0198b3a2-0000-7000-8000-000000000001"
    name = f"session-{session_id}"
    theirs: Manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "box",
                    "image": "theirs",
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    made = await sessions.kube.request("POST", sessions.pods_path, body=theirs)
    await start_operator()
    await sessions.create(session_id=session_id, desiredState="Running")
    condition = await sessions.wait_for_condition(name, "PodNameTaken")
    assert "does not belong to this session" in condition["message"]
    pod = await sessions.pod(name)
    assert pod is not None
    assert pod["metadata"]["uid"] == made["metadata"]["uid"]


def in_namespace(kind: str, spec: Manifest) -> Manifest:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "here"}, "spec": spec}


def absent_webhook(namespace: str) -> Manifest:
    """The API server must ask it about each pod of one namespace, but it does not respond."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": namespace},
        "webhooks": [
            {
                "name": "pods.example.com",
                "clientConfig": {"url": "https://127.0.0.1:9/"},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "failurePolicy": "Fail",
            }
        ],
    }


REFUSALS: dict[str, tuple[str, Manifest | None, str, str]] = {
    "the quota is used up": (
        "resourcequotas",
        in_namespace("ResourceQuota", {"hard": {"pods": "0"}}),
        "QuotaExceeded",
        "exceeded quota: here",
    ),
    "it may not be so large": (
        "limitranges",
        in_namespace("LimitRange", {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]}),
        "PodRefused",
        "maximum memory usage per Container is 1Gi",
    ),
    "a webhook is away": ("", None, "PodRefused", "failed calling webhook"),
}


@pytest.mark.parametrize(("kind", "rule", "reason", "message"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_refused_pod_becomes_a_reason_and_is_created_once_it_is_allowed(
    sessions: Sessions,
    kubelet: Kubelet,
    start_operator: Any,
    kind: str,
    rule: Manifest | None,
    reason: str,
    message: str,
) -> None:
    path = f"/api/v1/namespaces/{sessions.namespace}/{kind}"
    if rule is None:
        rule = absent_webhook(sessions.namespace)
        path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    await sessions.kube.request("POST", path, body=rule)
    await until(lambda: is_refused(sessions), "pods are refused")
    await start_operator()
    name = await sessions.create(desiredState="Running")
    condition = await sessions.wait_for_condition(name, reason)
    assert condition["status"] == "False"
    assert message in condition["message"]
    await sessions.kube.request("DELETE", f"{path}/{rule['metadata']['name']}")
    await sessions.wait_for_condition(name, "SandboxReady")


async def is_refused(sessions: Sessions) -> bool:
    """Whether admission enforces the rule. It learns about the rule by a watch, so that takes a moment."""
    container = {
        "name": "box",
        "image": "any",
        "resources": {"limits": {"memory": "2Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = in_namespace("Pod", {"containers": [container], "securityContext": security})
    try:
        await sessions.kube.request("POST", sessions.pods_path, body=pod, query={"dryRun": "All"})
    except KubeError:
        return True
    return False


async def test_a_pod_on_a_lost_node_is_replaced(sessions: Sessions, kubelet: Kubelet, start_operator: Any) -> None:
    await start_operator()
    name = await sessions.create(desiredState="Running")
    await sessions.wait_for_condition(name, "SandboxReady")
    before = await sessions.pod(name)
    kubelet.holds_on = True
    body = {"gracePeriodSeconds": 1}
    await sessions.kube.request("DELETE", f"{sessions.pods_path}/{name}", body=body)
    assert (await sessions.wait_for_condition(name, "NodeLost"))["status"] == "False"
    kubelet.holds_on = False
    await sessions.wait_for_condition(name, "SandboxReady")
    after = await sessions.pod(name)
    assert before is not None
    assert after is not None
    assert after["metadata"]["uid"] != before["metadata"]["uid"]


async def test_a_standby_takes_over_from_a_killed_leader(
    sessions: Sessions, kubelet: Kubelet, start_operator: Any
) -> None:
    first = await start_operator()
    second = await start_operator(leads=False)

    async def is_healthy() -> bool:
        return bool(await second.metric("python_info") == 1)

    await until(is_healthy, "the standby serves health and metrics")
    assert await second.metric("moorage_operator_leading") == 0
    await first.kill()
    name = await sessions.create(desiredState="Running")
    await second.wait_until_leading()
    await sessions.wait_for_condition(name, "SandboxReady")


async def test_a_leader_that_receives_sigterm_hands_over_immediately(
    sessions: Sessions, kubelet: Kubelet, start_operator: Any
) -> None:
    long = {"MOORAGE_OPERATOR_LEASE_SECONDS": "120", "MOORAGE_OPERATOR_RENEW_SECONDS": "60"}
    first = await start_operator(**long)
    second = await start_operator(leads=False, **long)
    assert await first.stop() == 0
    await second.wait_until_leading()


async def test_a_leader_that_lost_its_lease_exits(sessions: Sessions, start_operator: Any) -> None:
    operator = await start_operator()
    path = f"/apis/coordination.k8s.io/v1/namespaces/{sessions.namespace}/leases/moorage-operator"
    body = {"spec": {"holderIdentity": "somebody-else"}}
    await sessions.kube.request("PATCH", path, body=body, content_type=MERGE_PATCH)
    async with asyncio.timeout(HANG_SECONDS):
        assert await operator.process.wait() == 1
    assert "lost the Lease" in operator.read_log()
