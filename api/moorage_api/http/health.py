"""Probes and metrics, outside /api."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text

from moorage_api.dependencies import ResourcesDep
from moorage_api.http.envelope import Envelope, ok

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> Envelope[None]:
    """Liveness probe: the process answers."""
    return ok()


@router.get("/readyz")
async def readyz(resources: ResourcesDep) -> Envelope[None]:
    """Readiness probe: the database answers. If it does not, every request would fail, so send none to this replica."""
    async with resources.db() as tx:
        await tx.execute(text("SELECT 1"))
    return ok()


@router.get("/metrics", response_class=Response)
async def metrics() -> Response:
    """Metrics in Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
