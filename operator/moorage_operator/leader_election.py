"""Leader election: one replica holds a coordination.k8s.io Lease, and it works for as long as it can renew the Lease.

We do not use the election in `kubernetes.aio`: it ends when the API server cannot be reached, it goes on when the work
has failed, and it never releases a Lease.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moorage_common.tasks import get_error, race
from moorage_kube.client import KubeClient, KubeError, Manifest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ElectionTimes:
    """A leader that cannot renew for `renew_seconds` stops. After `lease_seconds`, which is longer, another takes over.

    `retry_seconds` lie between two attempts to take or renew the Lease. Raises ValueError for times in another order.
    """

    lease_seconds: float = 15
    renew_seconds: float = 10
    retry_seconds: float = 2

    def __post_init__(self) -> None:
        if not self.retry_seconds < self.renew_seconds < self.lease_seconds:
            raise ValueError(
                "The times of the leader election must satisfy retry_seconds < renew_seconds < lease_seconds, but they "
                f"are {self.retry_seconds}, {self.renew_seconds} and {self.lease_seconds}"
            )


class LeaderElection:
    def __init__(self, kube: KubeClient, *, namespace: str, name: str, identity: str, times: ElectionTimes) -> None:
        self._kube = kube
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._leases}/{name}"
        self._name = name
        self._identity = identity
        self._times = times
        self._last_read: tuple[str, float] = ("", 0.0)
        """The last version of another replica's Lease, and when we first read it. Only our own clock counts."""
        self._is_held_by_other = False

    async def lead(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for the Lease, then do `work` until it ends or fails or the Lease is lost. Then release the Lease."""
        began = time.monotonic()
        while not await self._acquire():
            await asyncio.sleep(self._times.retry_seconds)
            began = time.monotonic()
        logger.info("This replica is the leader now", extra={"identity": self._identity})
        try:
            async with race(work(), self._renew(began)) as tasks:
                pass
        finally:
            with suppress(KubeError):
                await self._release()
        for task in tasks:
            if (error := get_error(task)) is not None:
                raise error

    async def _renew(self, renewed: float) -> None:
        """Renew the Lease; return when it is lost.

        A renewal counts from the time of its request, because the response can arrive much later.
        """
        while time.monotonic() - renewed < self._times.renew_seconds:
            await asyncio.sleep(self._times.retry_seconds)
            began = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._times.renew_seconds - (began - renewed)):
                    if await self._acquire():
                        renewed = began
                    elif self._is_held_by_other:
                        break
        logger.error("This replica lost the Lease and stops working", extra={"identity": self._identity})

    async def _acquire(self) -> bool:
        """Take or renew the Lease. False while another replica holds it, and when the API server does not respond."""
        try:
            found = await self._kube.find(self._path)
            if found is None:
                await self._kube.request("POST", self._leases, body=self._build_lease(None))
                return True
            if not self._is_free(found):
                self._is_held_by_other = True
                return False
            await self._kube.request("PUT", self._path, body=self._build_lease(found))
        except KubeError as error:
            logger.warning("The Lease could not be taken or renewed, will try again", extra={"error": str(error)})
            return False
        self._is_held_by_other = False
        return True

    def _is_free(self, found: Manifest) -> bool:
        spec = found.get("spec", {})
        if spec.get("holderIdentity") in (None, "", self._identity):
            return True
        version = found["metadata"]["resourceVersion"]
        if version != self._last_read[0]:
            self._last_read = (version, time.monotonic())
        return time.monotonic() - self._last_read[1] > float(
            spec.get("leaseDurationSeconds") or self._times.lease_seconds
        )

    def _build_lease(self, found: Manifest | None) -> Manifest:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = dict(found.get("spec", {})) if found else {}
        is_ours = spec.get("holderIdentity") == self._identity
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": found["metadata"] if found else {"name": self._name},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": max(1, round(self._times.lease_seconds)),
                "acquireTime": spec["acquireTime"] if is_ours and "acquireTime" in spec else now,
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (0 if is_ours else 1),
            },
        }

    async def _release(self) -> None:
        """Let another replica take the Lease without waiting for its end."""
        found = await self._kube.find(self._path)
        if found is not None and found.get("spec", {}).get("holderIdentity") == self._identity:
            found["spec"]["holderIdentity"] = ""
            await self._kube.request("PUT", self._path, body=found)
