"""The operator on a real control plane (etcd, kube-apiserver, kube-controller-manager), without nodes.

Method: one operator process, a stand-in for scheduler and kubelet that marks each pod ready once it learns of it.
"Created" is from sending the resource to a watcher's hearing of its pod, "Ready" to its hearing of the status.
200 sessions are created at 20 a second. For the restart, so many sessions with a pod are there, a fifth of them wanting
a change (suspended while no operator ran); the time is from the process's start until every change is made, CPU and
resident memory are the process's own then. Writes a session are counted by the operator while 200 sessions are created
suspended, run and are deleted. etcd does not sync to disk here.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.rows import Row
from support.kube.control_plane import ControlPlane
from support.kube.fixtures import crd
from support.kube.kubelet import Kubelet
from support.kube.sessions import Operator, Sessions, namespace_on
from support.waiting import until

RATE = 20
SESSIONS = 200
CROWDS = (1_000, 5_000)
CALM_LEASE = {"MOORAGE_OPERATOR_LEASE_SECONDS": "60", "MOORAGE_OPERATOR_RENEW_SECONDS": "50"}


async def measure(directory: Path) -> list[Row]:
    with ControlPlane.boot(say=lambda _: None) as control_plane:
        control_plane.apply([crd()])
        await asyncio.sleep(2)
        control_plane.start_controller_manager(without=["pod-garbage-collector-controller"])
        rows = await measure_starts(control_plane, directory)
        for crowd in CROWDS:
            rows += await measure_restart(control_plane, directory, crowd)
        return rows


async def measure_starts(control_plane: ControlPlane, directory: Path) -> list[Row]:
    async with namespace_on(control_plane) as sessions, Kubelet.at_work(sessions.kube, sessions.namespace):
        operator = Operator(control_plane.kubeconfig, sessions.namespace, directory / "operator.log", CALM_LEASE)
        await operator.start()
        await operator.wait_until_leading()
        created, ready = await start_all(sessions)
        names = list(created)
        pods = {pod["metadata"]["name"]: pod for pod in await sessions.pods()}
        assert len(pods) == SESSIONS
        before = await operator.metric("moorage_operator_writes_total")
        await asyncio.gather(*(sessions.delete(name) for name in names))
        lives = [await sessions.create() for _ in range(SESSIONS)]
        await until(lambda: have_all_reason(sessions, lives, "Suspended"), "all are suspended", seconds=120)
        await asyncio.gather(*(sessions.patch(name, desiredState="Running") for name in lives))
        await until(lambda: have_all_reason(sessions, lives, "SandboxReady"), "all run", seconds=120)
        await asyncio.gather(*(sessions.delete(name) for name in lives))
        writes = (await operator.metric("moorage_operator_writes_total") - before) / SESSIONS
        await operator.stop()
    note = f"{SESSIONS} sessions at {RATE} a second, stand-in for the kubelet"
    return [
        Row("AgentSession created to pod created", "ms", [1000 * value for value in created.values()], "", note),
        Row("AgentSession created to Ready seen", "ms", [1000 * value for value in ready.values()], "", note),
        Row("operator's writes a session life", "writes", [writes], "<= 3", "the api makes three more"),
    ]


async def start_all(sessions: Sessions) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds from the creation of each session until a watch reports its pod, and until it reports readiness."""
    began: dict[str, float] = {}
    created: dict[str, float] = {}
    ready: dict[str, float] = {}

    async def watch(path: str, found: dict[str, float], is_it: Any) -> None:
        listed = await sessions.kube.request("GET", path)
        async for event in sessions.kube.watch(path, since=listed["metadata"]["resourceVersion"]):
            name = event["object"]["metadata"]["name"]
            if name in began and name not in found and is_it(event["object"]):
                found[name] = time.perf_counter() - began[name]
            if len(found) == SESSIONS:
                return

    def is_ready(session: Any) -> bool:
        return bool(session.get("status", {}).get("phase") == "Running")

    async with asyncio.timeout(300), asyncio.TaskGroup() as group:
        group.create_task(watch(sessions.pods_path, created, lambda _: True))
        group.create_task(watch(sessions.path, ready, is_ready))
        await asyncio.sleep(0.5)
        for _ in range(SESSIONS):
            at = time.perf_counter()
            name = await sessions.create(desiredState="Running")
            began[name] = at
            await asyncio.sleep(max(0.0, 1 / RATE - (time.perf_counter() - at)))
    return created, ready


async def have_all_reason(sessions: Sessions, names: list[str], reason: str) -> bool:
    wanted = set(names)
    seen = 0
    async for page in sessions.kube.pages(sessions.path):
        seen += sum(one["metadata"]["name"] in wanted and reason_of(one) == reason for one in page["items"])
    return seen == len(wanted)


async def wait_until_all_have_reason(
    sessions: Sessions, names: list[str], reason: str, *, since: str, seconds: float
) -> None:
    """Wait by a watch. Repeated lists of thousands of resources would disturb the measurement."""
    left = set(names)
    async with asyncio.timeout(seconds):
        async for event in sessions.kube.watch(sessions.path, since=since):
            if reason_of(event["object"]) == reason:
                left.discard(event["object"]["metadata"]["name"])
            if not left:
                return
    raise AssertionError(f"the watch ended before {len(left)} sessions had become {reason}")


def reason_of(session: Any) -> str | None:
    """The reason of the condition Ready."""
    conditions = session.get("status", {}).get("conditions", [])
    return next((str(one["reason"]) for one in conditions if one["type"] == "Ready"), None)


async def measure_restart(control_plane: ControlPlane, directory: Path, crowd: int) -> list[Row]:
    async with namespace_on(control_plane) as sessions, Kubelet.at_work(sessions.kube, sessions.namespace):
        log = directory / f"operator-{crowd}.log"
        operator = Operator(control_plane.kubeconfig, sessions.namespace, log, CALM_LEASE)
        await operator.start()
        await operator.wait_until_leading()
        names: list[str] = []
        for _ in range(0, crowd, 50):
            names += await asyncio.gather(*(sessions.create(desiredState="Running") for _ in range(50)))
        await until(lambda: have_all_reason(sessions, names, "SandboxReady"), "all run", seconds=900)
        await operator.stop()
        changed = names[: crowd // 5]
        for start in range(0, len(changed), 50):
            part = changed[start : start + 50]
            await asyncio.gather(*(sessions.patch(name, desiredState="Suspended") for name in part))
        listed = await sessions.kube.request("GET", sessions.path, query={"limit": 1})
        since = listed["metadata"]["resourceVersion"]
        began = time.perf_counter()
        await operator.start()
        await wait_until_all_have_reason(sessions, changed, "Suspended", since=since, seconds=300)
        seconds = time.perf_counter() - began
        assert operator.process is not None
        process = psutil.Process(operator.process.pid)
        memory, cpu = process.memory_info().rss / 2**20, sum(process.cpu_times()[:2])
        await operator.stop()
    note = f"{crowd:,} sessions with a pod, a fifth to be changed"
    return [
        Row("operator restarted until all is as wanted", "s", [seconds], "<= 20", note),
        Row("operator's CPU until then", "s", [cpu], "", note),
        Row("operator's resident memory", "MiB", [memory], "<= 250", note),
    ]
