"""One control plane for all tests; each test has a namespace, a stand-in kubelet and operators of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from support.kube.control_plane import ControlPlane
from support.kube.fixtures import control_plane
from support.kube.kubelet import Kubelet
from support.kube.sessions import Operator, Sessions, namespace_on

__all__ = ["control_plane"]

StartOperator = Callable[..., Awaitable[Operator]]


@pytest.fixture
async def sessions(control_plane: ControlPlane) -> AsyncIterator[Sessions]:
    async with namespace_on(control_plane) as made:
        yield made


@pytest.fixture
async def kubelet(sessions: Sessions) -> AsyncIterator[Kubelet]:
    async with Kubelet.at_work(sessions.kube, sessions.namespace) as at_work:
        yield at_work


@pytest.fixture
async def start_operator(
    control_plane: ControlPlane, sessions: Sessions, tmp_path: Path
) -> AsyncIterator[StartOperator]:
    """Starts an operator for the test's namespace. With `leads=False` it does not wait until it leads."""
    started: list[Operator] = []

    async def start(*, leads: bool = True, kubeconfig: Path | None = None, **environment: str) -> Operator:
        log = tmp_path / f"operator-{len(started)}.log"
        operator = Operator(kubeconfig or control_plane.kubeconfig, sessions.namespace, log, environment)
        started.append(operator)
        await operator.start()
        if leads:
            await operator.wait_until_leading()
        return operator

    yield start
    for operator in started:
        if operator.process is not None and operator.process.returncode is None:
            await operator.kill()
