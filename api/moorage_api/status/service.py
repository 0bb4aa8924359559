"""Probes of the servers that the platform needs. They run at the same time, each with a timeout."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from redis.asyncio import Redis

from moorage_api.database import Database, ping
from moorage_api.objects.store import BlobStore
from moorage_api.sandboxes.provider import Sandboxes
from moorage_api.status.schemas import HealthStatus

PROBE_SECONDS = 3.0

Probe = Callable[[], Awaitable[str]]
"""Returns details about a server that works. Any exception means that it does not work."""


def platform_probes(db: Database, client: Redis, blobs: BlobStore, cluster: Sandboxes | None) -> Mapping[str, Probe]:
    """Probes by the names that the contract gives to the servers. `cluster` is None on a single machine."""

    async def postgres() -> str:
        async with db() as tx:
            return f"PostgreSQL {await ping(tx)}"

    async def redis() -> str:
        await client.ping()
        return "answers"

    async def minio() -> str:
        if not await blobs.has_bucket():
            raise MissingBucketError
        return f"has the bucket {blobs.bucket}"

    asked: dict[str, Probe] = {"postgres": postgres, "redis": redis, "minio": minio}
    if cluster is not None:

        async def kubernetes() -> str:
            await cluster.ping()
            return "answers"

        asked["kubernetes"] = kubernetes
    return asked


class PlatformStatus:
    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = probes

    async def run_probes(self) -> list[HealthStatus]:
        return list(await asyncio.gather(*(_run_probe(service, probe) for service, probe in self._probes.items())))


class MissingBucketError(Exception):
    """The object store answers, but our bucket does not exist."""


async def _run_probe(service: str, probe: Probe) -> HealthStatus:
    """Run one probe. Only the class of an error is shown, because its text may contain addresses and names."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            details = await probe()
    except TimeoutError:
        return HealthStatus(service=service, status="error", details=f"no answer within {PROBE_SECONDS:.0f} s")
    except MissingBucketError:
        return HealthStatus(service=service, status="error", details="bucket_not_exists")
    except Exception as error:  # noqa: BLE001 - any exception of a client library means that the server does not work
        return HealthStatus(service=service, status="error", details=f"cannot be used: {type(error).__name__}")
    milliseconds = (time.monotonic() - began) * 1000
    return HealthStatus(service=service, status="ok", details=f"{details}, {milliseconds:.0f} ms")
