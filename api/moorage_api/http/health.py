"""Probes and metrics, outside /api."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from moorage_api.database import Database, ping
from moorage_api.http.envelope import Envelope, ok
from moorage_api.http.provided import provide

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> Envelope[None]:
    """Liveness probe: the process answers."""
    return ok()


@router.get("/readyz")
async def readyz(db: Annotated[Database, Depends(provide(Database))]) -> Envelope[None]:
    """Readiness probe: the database answers. If it does not, every request would fail, so send none to this replica."""
    async with db() as tx:
        await ping(tx)
    return ok()


@router.get("/metrics", response_class=Response)
async def metrics() -> Response:
    """Metrics in Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
