"""Probes of the servers that the platform needs. They run at the same time, each with a timeout."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy import text

from moorage_api.resources import Resources
from moorage_api.status.schemas import HealthStatus

PROBE_SECONDS = 3.0

Probe = Callable[[], Awaitable[str]]
"""Returns details about a server that works. Any exception means that it does not work."""


def probes(resources: Resources) -> Mapping[str, Probe]:
    """Probes by the names that the contract gives to the servers."""

    async def postgres() -> str:
        async with resources.db() as tx:
            return f"PostgreSQL {str(await tx.scalar(text('SHOW server_version'))).split()[0]}"

    async def redis() -> str:
        await resources.redis.ping()
        return "answers"

    async def minio() -> str:
        if not await resources.blobs.has_bucket():
            raise MissingBucketError
        return f"has the bucket {resources.blobs.bucket}"

    async def kubernetes() -> str:
        await resources.sandboxes.ping()
        return "answers"

    asked: dict[str, Probe] = {"postgres": postgres, "redis": redis, "minio": minio}
    if resources.settings.sandboxes == "cluster":
        asked["kubernetes"] = kubernetes
    return asked


class MissingBucketError(Exception):
    """The object store answers, but our bucket does not exist."""


async def ask_all(asked: Mapping[str, Probe]) -> list[HealthStatus]:
    return list(await asyncio.gather(*(_ask(service, probe) for service, probe in asked.items())))


async def _ask(service: str, probe: Probe) -> HealthStatus:
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
