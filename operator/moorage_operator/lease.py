"""One replica leads: it holds a coordination.k8s.io Lease and works for as long as it can renew it.

Our own, since the election in `kubernetes.aio` ends with an unreachable API server, goes on when what it leads has
failed, and never gives a Lease back.
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
class LeaseTimes:
    """Whoever can't renew for `renew_seconds` stops; others take over after `lease_seconds`, which is longer."""

    lease_seconds: float = 15
    renew_seconds: float = 10
    retry_seconds: float = 2

    def __post_init__(self) -> None:
        if not self.retry_seconds < self.renew_seconds < self.lease_seconds:
            raise ValueError("a Lease needs retry < renew < lease")


class Lease:
    def __init__(self, kube: KubeClient, *, namespace: str, name: str, identity: str, times: LeaseTimes) -> None:
        self._kube = kube
        self._all = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._all}/{name}"
        self._name = name
        self._identity = identity
        self._times = times
        self._seen: tuple[str, float] = ("", 0.0)
        """The version last seen of another's Lease, and when, by our own clock: nobody's else is trusted."""

    async def lead(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for the Lease, then do `work` until it ends, fails or the Lease is lost; then give the Lease back."""
        began = time.monotonic()
        while not await self._take():  # another process gives it up
            await asyncio.sleep(self._times.retry_seconds)
            began = time.monotonic()
        logger.info("This replica leads", extra={"identity": self._identity})
        try:
            async with race(work(), self._renew(began)) as tasks:
                pass
        finally:
            with suppress(KubeError):
                await self._give_back()
        for task in tasks:
            if (error := get_error(task)) is not None:
                raise error

    async def _renew(self, renewed: float) -> None:
        """Ends when the Lease is lost. It counts from when it was asked for: the answer may have come much later."""
        while time.monotonic() - renewed < self._times.renew_seconds:
            await asyncio.sleep(self._times.retry_seconds)
            began = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._times.renew_seconds - (began - renewed)):
                    if await self._take():
                        renewed = began
                    elif self._is_anothers:
                        break
        logger.error("The Lease is lost", extra={"identity": self._identity})

    _is_anothers = False

    async def _take(self) -> bool:
        """Take or renew it. False while another holds it, and when the API server does not let us know."""
        try:
            found = await self._kube.find(self._path)
            if found is None:
                await self._kube.request("POST", self._all, body=self._wanted(None))
                return True
            if not self._is_free(found):
                self._is_anothers = True
                return False
            await self._kube.request("PUT", self._path, body=self._wanted(found))
        except KubeError as error:
            logger.warning("The Lease could not be had", extra={"error": str(error)})
            return False
        self._is_anothers = False
        return True

    def _is_free(self, found: Manifest) -> bool:
        spec = found.get("spec", {})
        if spec.get("holderIdentity") in (None, "", self._identity):
            return True
        version = found["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, time.monotonic())
        return time.monotonic() - self._seen[1] > float(spec.get("leaseDurationSeconds") or self._times.lease_seconds)

    def _wanted(self, found: Manifest | None) -> Manifest:
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

    async def _give_back(self) -> None:
        """So that another need not wait."""
        found = await self._kube.find(self._path)
        if found is not None and found.get("spec", {}).get("holderIdentity") == self._identity:
            found["spec"]["holderIdentity"] = ""
            await self._kube.request("PUT", self._path, body=found)
