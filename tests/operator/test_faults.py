"""The operator under faults: it is killed, the API server refuses requests, watches are cut, and its rights are few."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from support.kube.accounts import service_account
from support.kube.control_plane import ControlPlane
from support.kube.cutting import CuttingProxy
from support.kube.faults import Fault, FaultyProxy
from support.kube.fixtures import ROOT
from support.kube.kubelet import Kubelet
from support.kube.sessions import Operator, Sessions
from support.seeds import many_seeds, seeds
from support.waiting import until

pytestmark = pytest.mark.timeout(15 * 60)


async def has_converged(sessions: Sessions, wanted: dict[str, str]) -> bool:
    """Whether each session has what it asks for and nothing else exists. `wanted` maps existing sessions to states."""
    pods = {pod["metadata"]["name"]: pod for pod in await sessions.pods()}
    if set(pods) != {name for name, state in wanted.items() if state == "Running"}:
        return False
    for name, state in wanted.items():
        session = await sessions.get(name)
        assert session is not None
        status = session.get("status", {})
        pod = pods.get(name)
        if status.get("phase") != state or status.get("podUID") != (pod["metadata"]["uid"] if pod else None):
            return False
    return True


async def change_things(sessions: Sessions, chance: random.Random, wanted: dict[str, str]) -> None:
    """Create, change and delete a few sessions in quick succession."""
    for _ in range(12):
        what = chance.choice(["create", "create", "switch", "delete"])
        if what == "create" or not wanted:
            state = chance.choice(["Running", "Running", "Suspended"])
            wanted[await sessions.create(desiredState=state)] = state
        elif what == "switch":
            name = chance.choice(sorted(wanted))
            wanted[name] = "Suspended" if wanted[name] == "Running" else "Running"
            await sessions.patch(name, desiredState=wanted[name])
        else:
            name = chance.choice(sorted(wanted))
            del wanted[name]
            await sessions.delete(name)
        await asyncio.sleep(chance.uniform(0, 0.05))


async def killed_at_a_moment(seed: int, sessions: Sessions, operator: Operator) -> None:
    chance = random.Random(seed)
    wanted: dict[str, str] = {}
    changing = asyncio.create_task(change_things(sessions, chance, wanted))
    await asyncio.sleep(chance.uniform(0, 0.8))
    await operator.kill()
    await operator.start()
    await changing
    await until(lambda: has_converged(sessions, wanted), f"seed {seed}: all is as wanted")


@pytest.mark.parametrize("seed", seeds())
async def test_a_kill_at_any_moment_leaves_no_orphan_and_no_second_pod(
    seed: int, sessions: Sessions, kubelet: Kubelet, start_operator: Any
) -> None:
    operator = await start_operator()
    await killed_at_a_moment(seed, sessions, operator)
    uids = [pod["metadata"]["uid"] for pod in await sessions.pods()]
    assert len(uids) == len(set(uids))


@pytest.mark.chaos
@pytest.mark.parametrize("seed", many_seeds())
async def test_many_kills(seed: int, sessions: Sessions, kubelet: Kubelet, start_operator: Any) -> None:
    await killed_at_a_moment(seed, sessions, await start_operator())


def refuse_requests(chance: random.Random) -> Any:
    def fault(_: web.Request) -> Fault:
        return chance.choice([429, 500, 503, "cut", None, None, None])

    return fault


def cut_watch(how: str) -> Any:
    return lambda request: how if request.query.get("watch") == "true" else None


@pytest.mark.parametrize("how", ["refuses", "cut", "gone"])
async def test_sessions_converge_although_the_api_server_fails_intermittently(
    control_plane: ControlPlane, sessions: Sessions, kubelet: Kubelet, start_operator: Any, tmp_path: Path, how: str
) -> None:
    async with FaultyProxy.before(control_plane, tmp_path) as proxy:
        if how != "refuses":
            proxy.fault = cut_watch(how)  # from the first watch on: one that is open already would not be cut
        operator = await start_operator(
            kubeconfig=proxy.kubeconfig,
            MOORAGE_OPERATOR_LEASE_SECONDS="60",
            MOORAGE_OPERATOR_RENEW_SECONDS="50",
            MOORAGE_OPERATOR_RELIST_SECONDS="5",
        )
        if how == "refuses":
            proxy.fault = refuse_requests(random.Random(7))
        wanted: dict[str, str] = {}
        await change_things(sessions, random.Random(11), wanted)
        await asyncio.sleep(1)
        proxy.fault = lambda _: None
        await until(lambda: has_converged(sessions, wanted), "all is as wanted")
        assert sum(proxy.failed.values()) > 0
        await operator.kill()


async def test_an_operator_whose_watch_is_refused_keeps_trying(
    control_plane: ControlPlane, sessions: Sessions, kubelet: Kubelet, start_operator: Any, tmp_path: Path
) -> None:
    """If it ended instead, Kubernetes would restart it with growing pauses of up to five minutes."""
    async with CuttingProxy.before(control_plane, tmp_path) as proxy:
        operator = await start_operator(
            kubeconfig=proxy.kubeconfig, MOORAGE_OPERATOR_LEASE_SECONDS="60", MOORAGE_OPERATOR_RENEW_SECONDS="50"
        )
        name = await sessions.create(desiredState="Running")
        await sessions.wait_for_condition(name, "SandboxReady")
        proxy.fault = lambda request: 503 if request.method == "GET" and request.path == sessions.path else None
        proxy.cut_watches()

        async def is_refused() -> bool:
            return proxy.failed.get("503", 0) >= 6

        await until(is_refused, "it asks again and again")
        proxy.fault = lambda _: None
        await sessions.patch(name, desiredState="Suspended")
        await sessions.wait_for_condition(name, "Suspended")
        assert operator.process.returncode is None
        await operator.kill()


async def test_the_next_list_finds_what_a_cut_watch_missed(
    control_plane: ControlPlane, sessions: Sessions, kubelet: Kubelet, start_operator: Any, tmp_path: Path
) -> None:
    """A pod is deleted while no watch is connected, so no event reports it."""
    async with FaultyProxy.before(control_plane, tmp_path) as proxy:
        operator = await start_operator(
            kubeconfig=proxy.kubeconfig,
            MOORAGE_OPERATOR_LEASE_SECONDS="60",
            MOORAGE_OPERATOR_RENEW_SECONDS="50",
            MOORAGE_OPERATOR_RELIST_SECONDS="2",
        )
        name = await sessions.create(desiredState="Running")
        await sessions.wait_for_condition(name, "SandboxReady")
        before = await sessions.pod(name)
        assert before is not None
        proxy.fault = lambda request: 503 if "pods" in request.path or request.query.get("watch") else None
        await sessions.kube.request("DELETE", f"{sessions.pods_path}/{name}")

        async def is_gone() -> bool:
            return await sessions.pod(name) is None

        await until(is_gone, "the pod is gone")
        proxy.fault = lambda _: None
        await until(lambda: has_converged(sessions, {name: "Running"}), "another pod is there")
        await operator.kill()


async def test_the_operator_works_with_exactly_the_rights_of_the_chart(
    control_plane: ControlPlane, sessions: Sessions, kubelet: Kubelet, start_operator: Any, tmp_path: Path
) -> None:
    rules = yaml.safe_load((ROOT / "charts" / "moorage" / "files" / "operator-rules.yaml").read_text())
    kubeconfig = await service_account(
        "operator", rules, control_plane=control_plane, sessions=sessions, directory=tmp_path
    )
    await start_operator(kubeconfig=kubeconfig)
    name = await sessions.create(desiredState="Running")
    await sessions.wait_for_condition(name, "SandboxReady")
    await sessions.patch(name, desiredState="Suspended")
    await sessions.wait_for_condition(name, "Suspended")
    account = f"system:serviceaccount:{sessions.namespace}:operator"
    may = control_plane.kubectl("auth", "can-i", "--list", f"--as={account}", f"--namespace={sessions.namespace}")
    granted = {line.split()[0] for line in may.splitlines()[1:] if line and not line.startswith(" ")}
    assert granted - {"selfsubjectreviews.authentication.k8s.io"} <= {
        "pods",
        "agentsessions.moorage.dev",
        "agentsessions.moorage.dev/status",
        "leases.coordination.k8s.io",
        "selfsubjectaccessreviews.authorization.k8s.io",
        "selfsubjectrulesreviews.authorization.k8s.io",
    }
    for forbidden in (
        ["get", "secrets"],
        ["create", "pods", "--subresource=exec"],
        ["create", "agentsessions"],
        ["update", "leases/somebody-elses"],
    ):
        asked = ["auth", "can-i", *forbidden, f"--as={account}", f"--namespace={sessions.namespace}"]
        assert control_plane.kubectl_result(*asked).stdout.strip() == "no"
