"""Of two replicas one leads, whatever the API server does meanwhile."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from aiohttp import web

from moorage_operator.lease import Lease, LeaseTimes
from support.kube.control_plane import ControlPlane
from support.kube.faults import Fault, FaultyProxy
from support.kube.sessions import Sessions, kube_client

TIMES = LeaseTimes(lease_seconds=4, renew_seconds=2, retry_seconds=0.2)


async def test_whoever_is_told_late_that_it_leads_ends_before_another_begins(
    control_plane: ControlPlane, sessions: Sessions, tmp_path: Path
) -> None:
    """The Lease runs from when it was written, not from when the answer came."""
    async with FaultyProxy.before(control_plane, tmp_path) as proxy, kube_client(proxy.kubeconfig) as kube:

        def fault(request: web.Request) -> Fault:
            return "late" if request.method == "POST" else 503 if "late" in proxy.failed else None

        proxy.fault, proxy.late_seconds = fault, 1.8
        lease = Lease(kube, namespace=sessions.namespace, name="one", identity="a", times=TIMES)
        began = time.monotonic()
        leads = asyncio.Event()

        async def work() -> None:
            leads.set()
            await asyncio.Event().wait()

        await lease.lead(work)
        assert leads.is_set()
        assert time.monotonic() - began < 3
