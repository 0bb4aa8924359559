"""One node and one sandbox pod for all node tests. A failure shows the log of every component."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator

import pytest

from moorage_sandbox.client import GateClient
from support.gate import Keys
from support.kube.fixtures import boot
from support.kube.node import Node, last_log_lines
from support.kube.sandbox_pod import SandboxPod


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fixtures = getattr(item, "funcargs", {})
    node, sandbox = fixtures.get("node"), fixtures.get("sandbox")
    if report.failed and isinstance(node, Node):
        report.sections.append(("components of the node", last_log_lines(node.logs)))
        if isinstance(sandbox, SandboxPod):
            report.sections.append(("the sandbox pod", node.describe_pod(sandbox.namespace, sandbox.name)))
    return report


@pytest.fixture(scope="session")
def node(pytestconfig: pytest.Config) -> Iterator[Node]:
    """A booted node with the images of the sandbox."""
    with boot(Node.boot(), pytestconfig) as node:
        yield node


@pytest.fixture(scope="session")
def sandbox(node: Node, tmp_path_factory: pytest.TempPathFactory) -> SandboxPod:
    """The pod of sandbox-pod.yaml, after it became Ready."""
    return SandboxPod.create(node, keys=Keys.create(tmp_path_factory.mktemp("keys")))


@pytest.fixture
async def client(sandbox: SandboxPod) -> AsyncIterator[GateClient]:
    """A client with the rights of a runner, bound to the session of the pod."""
    async with sandbox.client() as client:
        await client.bind()
        yield client
