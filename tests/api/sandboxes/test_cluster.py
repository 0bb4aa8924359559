"""The api's requests to a cluster, and how it handles errors of the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from moorage_api.errors import UnavailableError
from moorage_crds import names
from moorage_crds.types import SkillPin
from support.kube.cutting import CuttingProxy
from support.kube.faults import Fault
from support.kube.kubelet import Behaviour, status, terminated, waiting
from support.kube.sessions import writes_in
from support.waiting import until

from .conftest import ClusterWorld, ReportedStates

OWNER = uuid4()
PINS = [
    SkillPin(id="pdf", digest=f"sha256:{'a' * 64}", phase="initial"),
    SkillPin(id="web-forms", digest=f"sha256:{'b' * 64}", phase="backfill"),
]

pytestmark = pytest.mark.timeout(15 * 60)


async def test_a_session_life_costs_the_api_three_writes(world: ClusterWorld, session_id: UUID) -> None:
    """The aim is six writes for api and operator together. The operator's three are counted in its own tests."""
    name = names.resource_name(session_id)
    api, runner = await world.replica(), await world.replica()
    await api.register(session_id, owner_id=OWNER)
    made = await world.sessions.get(name)
    assert made is not None
    assert made["spec"] == {
        "sessionId": str(session_id),
        "ownerId": str(OWNER),
        "desiredState": "Suspended",
        "skills": [],
    }
    assert made["metadata"]["labels"] == {
        "app.kubernetes.io/part-of": "moorage",
        "app.kubernetes.io/managed-by": "moorage-api",
        "moorage.dev/session": str(session_id),
        "moorage.dev/owner": str(OWNER),
    }

    sandbox = await runner.ensure(session_id, owner_id=OWNER, skills=PINS)
    running = await world.sessions.get(name)
    assert running is not None
    assert running["spec"]["desiredState"] == "Running"
    assert running["spec"]["skills"] == [{"id": pin.id, "digest": pin.digest, "phase": pin.phase} for pin in PINS]
    assert sandbox.uid == running["status"]["podUID"]
    assert await api.find(session_id) == sandbox
    await api.delete(session_id)

    by_api = [
        (verb, kind)
        for user, verb, kind in writes_in(world.control_plane.audit_log, world.sessions.namespace)
        if user == world.api_user
    ]
    assert by_api == [(verb, names.PLURAL) for verb in ("create", "patch", "delete")]


RIGHTS = {
    **{(verb, "agentsessions"): "yes" for verb in ("get", "list", "watch", "create", "patch", "delete")},
    ("deletecollection", "agentsessions"): "no",
    ("patch", "agentsessions/status"): "no",
    **{(verb, "pods"): "no" for verb in ("get", "list", "create", "delete")},
    ("create", "pods/exec"): "no",
    ("get", "secrets"): "no",
    ("list", "configmaps"): "no",
    ("create", "serviceaccounts/token"): "no",
}


async def test_the_chart_gives_the_api_no_more_rights_than_needed(world: ClusterWorld) -> None:
    """All other tests run with these rights, and so show that they are sufficient."""
    answers = {}
    for verb, kind in RIGHTS:
        resource, _, subresource = kind.partition("/")
        is_ours = resource == names.PLURAL
        attributes = {
            "namespace": world.sessions.namespace,
            "verb": verb,
            "group": names.GROUP if is_ours else "",
            "resource": resource,
            "subresource": subresource,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": world.api_user, "resourceAttributes": attributes},
        }
        answer = await world.sessions.kube.request(
            "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review
        )
        answers[verb, kind] = "yes" if answer["status"]["allowed"] else "no"
    assert answers == RIGHTS


async def test_a_deleted_resource_is_created_again_when_it_is_needed(world: ClusterWorld, session_id: UUID) -> None:
    replica = await world.replica()
    first = await replica.ensure(session_id, owner_id=OWNER, skills=PINS)
    await world.sessions.delete(names.resource_name(session_id))

    async def is_gone() -> bool:
        return await replica.find(session_id) is None

    await until(is_gone, "the loss is seen")
    second = await replica.ensure(session_id, owner_id=OWNER, skills=PINS)
    assert second.uid != first.uid
    again = await world.sessions.get(names.resource_name(session_id))
    assert again is not None
    assert len(again["spec"]["skills"]) == 2


async def test_a_resource_that_is_deleted_during_the_start_is_created_again(
    world: ClusterWorld, session_id: UUID, reported: ReportedStates
) -> None:
    """The call that waits for the sandbox creates it again; it does not fail."""
    world.kubelet.behave = lambda pod: status(pod, phase="Pending")
    replica = await world.replica()
    starting = asyncio.create_task(replica.ensure(session_id, owner_id=OWNER, report=reported.report))
    await world.sessions.wait_for_condition(names.resource_name(session_id), "Starting")
    world.kubelet.behave = world.gates.behave
    await world.sessions.delete(names.resource_name(session_id))
    assert (await starting).uid in world.gates.gates
    assert reported.phases == ["starting", "ready"]


TROUBLE: dict[str, tuple[Behaviour, str, str]] = {
    "no node has room": (lambda _: None, "queued", "Insufficient memory"),
    "an image is not there": (
        lambda pod: status(pod, phase="Pending", containers={"box": waiting("ImagePullBackOff", "no such image")}),
        "failed",
        "The image of the container box cannot be pulled: no such image (ImagePullFailed)",
    ),
    "the gate keeps ending": (
        lambda pod: status(
            pod,
            containers={
                "gate": {
                    **waiting("CrashLoopBackOff"),
                    "restartCount": 2,
                    "lastState": {"terminated": terminated(1)},
                }
            },
        ),
        "failed",
        "gate ended with exit code 1",
    ),
}


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_a_pod_that_cannot_start_is_reported_with_its_reason(
    trouble: str, world: ClusterWorld, session_id: UUID, reported: ReportedStates
) -> None:
    world.kubelet.behave, phase, reason = TROUBLE[trouble]
    patient = await world.replica()
    waiting = asyncio.create_task(patient.ensure(session_id, owner_id=OWNER, report=reported.report))

    def is_reported() -> bool:
        return any(state.phase == phase and reason in state.reason for state in reported)

    await until(lambda: waiting.done() or is_reported(), f"{phase} is reported: {reported}")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert is_reported(), reported
    hurried = await world.replica(seconds=3)
    with pytest.raises(UnavailableError) as refused:
        await hurried.ensure(session_id, owner_id=OWNER, report=reported.report)
    assert reported.phases[-1] == "failed"
    assert reason in str(refused.value)


async def test_a_sandbox_waits_while_the_quota_is_used_up(
    world: ClusterWorld, session_id: UUID, reported: ReportedStates
) -> None:
    quotas = f"/api/v1/namespaces/{world.sessions.namespace}/resourcequotas"
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}}
    await world.sessions.kube.request("POST", quotas, body=quota)

    async def is_counted() -> bool:
        found = await world.sessions.kube.find(f"{quotas}/few")
        return bool(found and found.get("status", {}).get("hard"))

    await until(is_counted, "the quota counts")
    replica = await world.replica()
    starting = asyncio.create_task(replica.ensure(session_id, owner_id=OWNER, report=reported.report))
    await world.sessions.wait_for_condition(names.resource_name(session_id), "QuotaExceeded")
    await world.sessions.kube.request("DELETE", f"{quotas}/few")
    assert (await starting).uid in world.gates.gates
    assert reported.phases == ["starting", "queued", "starting", "ready"] or reported.phases == [
        "starting",
        "queued",
        "ready",
    ]
    assert "exceeded quota: few" in reported[1].reason


def watches(fault: Fault) -> Callable[[web.Request], Fault]:
    return lambda request: fault if request.query.get("watch") == "true" else None


def everything(fault: Fault) -> Callable[[web.Request], Fault]:
    return lambda _: fault


@pytest.mark.parametrize("fault", ["cut", "gone", 410, 429, 500, 503])
async def test_a_failed_watch_misses_no_change(
    fault: Fault, world: ClusterWorld, tmp_path: Path, session_id: UUID
) -> None:
    async with CuttingProxy.before(world.control_plane, tmp_path) as proxy:
        replica = await world.replica(proxy.kubeconfig)
        before = await replica.ensure(session_id, owner_id=OWNER)
        proxy.fault = watches(fault)
        others = [uuid4(), uuid4()]
        for other in others:
            await world.sessions.create(session_id=other, desiredState="Running")
        proxy.cut_watches()

        async def has_failed() -> bool:
            if isinstance(fault, str):
                await world.sessions.create()  # these faults need a change that the watch reports
            return proxy.failed.get(str(fault), 0) >= 2

        await until(has_failed, "watches fail")
        await world.sessions.delete(names.resource_name(session_id))
        proxy.fault = lambda _: None

        async def sees_all() -> bool:
            return await replica.find(session_id) is None and all([await replica.find(other) for other in others])

        await until(sees_all, "it sees what is there")
        assert (await replica.ensure(session_id, owner_id=OWNER)).uid != before.uid
        await world.stack.aclose()


async def test_sandboxes_wait_for_an_unreachable_cluster_and_running_ones_continue(
    world: ClusterWorld, tmp_path: Path, session_id: UUID, reported: ReportedStates
) -> None:
    async with CuttingProxy.before(world.control_plane, tmp_path) as proxy:
        replica = await world.replica(proxy.kubeconfig)
        running = uuid4()
        there = await replica.ensure(running, owner_id=OWNER)
        proxy.fault = everything(503)
        proxy.cut_watches()

        async def is_away() -> bool:
            return await replica.find_unregistered([session_id]) == []

        await until(is_away, "the loss is noticed")
        with pytest.raises(UnavailableError):
            await replica.register(session_id, owner_id=OWNER)
        assert await replica.find(running) == there  # a running sandbox is still found
        assert await replica.ensure(running, owner_id=OWNER) == there

        needed = uuid4()
        waiting_for = asyncio.create_task(replica.ensure(needed, owner_id=OWNER, report=reported.report))

        async def is_queued() -> bool:
            return "queued" in reported.phases

        await until(is_queued, "the run is told")
        proxy.fault = lambda _: None
        assert await waiting_for
        assert (reported.phases[0], reported.phases[-1]) == ("queued", "ready")
        assert "does not answer" in reported[0].reason

        async def is_back() -> bool:
            return await replica.find_unregistered([session_id, needed]) == [session_id]

        await until(is_back, "the one that is missing is known to be")
        await replica.register(session_id, owner_id=OWNER)
        assert await world.sessions.get(names.resource_name(session_id)) is not None
        await world.stack.aclose()


async def test_a_refused_request_is_not_repeated(
    world: ClusterWorld, session_id: UUID, reported: ReportedStates
) -> None:
    replica = await world.replica()
    with pytest.raises(UnavailableError, match="The cluster refused"):
        await replica.ensure(
            session_id,
            owner_id=OWNER,
            skills=[SkillPin(id=f"s{number}", digest=f"sha256:{'a' * 64}", phase="initial") for number in range(13)],
            report=reported.report,
        )
    assert reported.phases == ["failed"]
    assert "at most 12 skills can be initial" in reported[0].reason


async def test_only_one_of_many_simultaneous_suspensions_succeeds(world: ClusterWorld, session_id: UUID) -> None:
    """The others meet a conflict and return False."""
    replicas = [await world.replica() for _ in range(4)]
    await replicas[0].ensure(session_id, owner_id=OWNER)
    assert sorted(await asyncio.gather(*(one.suspend(session_id) for one in replicas))) == [False, False, False, True]
