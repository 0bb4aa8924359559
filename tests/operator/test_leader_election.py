"""Only one of two replicas leads, even while the API server fails."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from aiohttp import web

from moorage_operator.leader_election import ElectionTimes, LeaderElection
from support.kube.control_plane import ControlPlane
from support.kube.faults import Fault, FaultyProxy
from support.kube.sessions import Sessions, kube_client

TIMES = ElectionTimes(lease_seconds=4, renew_seconds=2, retry_seconds=0.2)


async def test_a_leader_whose_lease_was_confirmed_late_stops_before_another_replica_starts(
    control_plane: ControlPlane, sessions: Sessions, tmp_path: Path
) -> None:
    """The Lease counts from the request that took it, not from its response."""
    async with FaultyProxy.before(control_plane, tmp_path) as proxy, kube_client(proxy.kubeconfig) as kube:

        def fault(request: web.Request) -> Fault:
            return "late" if request.method == "POST" else 503 if "late" in proxy.failed else None

        proxy.fault, proxy.late_seconds = fault, 1.8
        election = LeaderElection(kube, namespace=sessions.namespace, name="one", identity="a", times=TIMES)
        began = time.monotonic()
        leads = asyncio.Event()

        async def work() -> None:
            leads.set()
            await asyncio.Event().wait()

        await election.lead(work)
        assert leads.is_set()
        assert time.monotonic() - began < 3
