"""The two implementations of `Sandboxes`: the host of this machine, and a cluster whose pods have real gates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import yaml

from moorage_api.sandboxes.cluster.cluster_sandboxes import ClusterSandboxes
from moorage_api.sandboxes.local import LocalSandboxes
from moorage_api.sandboxes.provider import Sandbox, Sandboxes, SandboxState
from moorage_sandbox.client import GateClient
from support.gate import Keys
from support.kube.accounts import service_account
from support.kube.control_plane import ControlPlane
from support.kube.fixtures import ROOT, control_plane
from support.kube.kubelet import Kubelet
from support.kube.pod_gates import PodGates
from support.kube.sessions import Operator, Sessions, namespace_on
from support.processes import shared_platform
from support.services import Services, run
from support.waiting import HANG_SECONDS

__all__ = ["control_plane"]

API_RULES = ROOT / "charts" / "moorage" / "files" / "api-rules.yaml"


@dataclass
class ClusterWorld:
    """A cluster with an operator, a simulated kubelet and real gates. `kubeconfig` has the rights of the api."""

    control_plane: ControlPlane
    sessions: Sessions
    kubelet: Kubelet
    gates: PodGates
    kubeconfig: Path
    stack: AsyncExitStack

    @property
    def api_user(self) -> str:
        return f"system:serviceaccount:{self.sessions.namespace}:api"

    async def replica(self, kubeconfig: Path | None = None, *, seconds: float = HANG_SECONDS) -> ClusterSandboxes:
        """Build the sandboxes object of one api or runner process."""
        running = ClusterSandboxes.open(
            namespace=self.sessions.namespace, kubeconfig=kubeconfig or self.kubeconfig, start_timeout_seconds=seconds
        )
        return await self.stack.enter_async_context(running)


@pytest.fixture
async def world(control_plane: ControlPlane, tmp_path: Path, short_directory: Path) -> AsyncIterator[ClusterWorld]:
    async with AsyncExitStack() as stack:
        sessions = await stack.enter_async_context(namespace_on(control_plane))
        kubelet = await stack.enter_async_context(Kubelet.at_work(sessions.kube, sessions.namespace))
        gates = PodGates(Keys.create(short_directory))
        stack.push_async_callback(gates.stop)
        kubelet.behave = gates.behave
        operator = Operator(control_plane.kubeconfig, sessions.namespace, tmp_path / "operator.log")
        await operator.start()
        stack.push_async_callback(operator.kill)
        await operator.wait_until_leading()
        rules = yaml.safe_load(API_RULES.read_text())
        kubeconfig = await service_account(
            "api", rules, control_plane=control_plane, sessions=sessions, directory=tmp_path
        )
        async with AsyncExitStack() as replicas:
            yield ClusterWorld(control_plane, sessions, kubelet, gates, kubeconfig, replicas)


@dataclass
class Home:
    """An implementation under test. `other` is the same one as another replica sees it."""

    sandboxes: Sandboxes
    other: Sandboxes
    away: Sandboxes
    """The same implementation while the host or the cluster does not answer."""
    keys: Keys

    def client(self, sandbox: Sandbox, session_id: UUID, *, uid: str | None = None) -> GateClient:
        return GateClient(
            sandbox.url,
            signer=self.keys.signer("runner"),
            sandbox_uid=uid or sandbox.uid,
            session_id=str(session_id),
            epoch=1,
        )


@pytest.fixture(scope="session")
def local_host(services: Services) -> Iterator[tuple[Path, Keys]]:
    with shared_platform(services) as platform:
        keys = Keys.create(platform.directory)
        run(platform.start_host(trust_file=keys.trust_file))
        yield platform.host_socket, keys


@pytest.fixture(params=["local", "cluster"])
def place(request: pytest.FixtureRequest) -> tuple[Path, Keys] | ClusterWorld:
    """This is not a coroutine, because the fixtures that it needs start their own event loops."""
    found: tuple[Path, Keys] | ClusterWorld = request.getfixturevalue(
        "local_host" if request.param == "local" else "world"
    )
    return found


@pytest.fixture
async def home(place: tuple[Path, Keys] | ClusterWorld, tmp_path: Path) -> AsyncIterator[Home]:
    if isinstance(place, ClusterWorld):
        nowhere = tmp_path / "nowhere.kubeconfig"
        nowhere.write_text(place.kubeconfig.read_text().replace(place.control_plane.server, "https://127.0.0.1:9"))
        yield Home(
            await place.replica(), await place.replica(), await place.replica(nowhere, seconds=1.5), place.gates.keys
        )
        return
    socket, keys = place
    three = [LocalSandboxes(path) for path in (socket, socket, tmp_path / "nobody.sock")]
    yield Home(three[0], three[1], three[2], keys)
    for one in three:
        await one.close()


class ReportedStates(list[SandboxState]):
    """The reported states, in order."""

    async def report(self, state: SandboxState) -> None:
        self.append(state)

    @property
    def phases(self) -> list[str]:
        return [state.phase for state in self]


@pytest.fixture
def reported() -> ReportedStates:
    return ReportedStates()


@pytest.fixture
def session_id() -> UUID:
    return uuid4()
