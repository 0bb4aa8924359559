"""Liveness, readiness and metrics of a runner, for the probes of a cluster. On one machine they are not served."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

LONGEST_STALL_SECONDS = 90.0
"""The claim loop is stalled after this time. It is longer than one iteration can take while the database hangs, because
a restart does not help then."""
LONGEST_AWAY_SECONDS = 10.0
"""The runner is not ready if the database has not answered for this long."""

RUNS = Gauge("moorage_runner_runs", "Runs that this replica works on")
CLAIMS = Counter("moorage_runner_claims", "Runs that this replica has begun, or taken over")


class Health:
    """Updated by the claim loop about once a second."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._iterated_at = now()
        self._answered_at = float("-inf")

    def on_iteration(self) -> None:
        """The loop has completed an iteration, with or without the database."""
        self._iterated_at = self._now()

    def on_database_answered(self) -> None:
        """The loop has completed an iteration in which the database answered."""
        self._iterated_at = self._answered_at = self._now()

    @property
    def is_alive(self) -> bool:
        return self._now() - self._iterated_at < LONGEST_STALL_SECONDS

    @property
    def is_ready(self) -> bool:
        return self._now() - self._answered_at < LONGEST_AWAY_SECONDS


def create_health_app(health: Health) -> Starlette:
    """Serve `/healthz` (if not 200, restart the runner), `/readyz` (200 if it can claim runs) and `/metrics`."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok") if health.is_alive else PlainTextResponse("stalled", 503)

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("ok") if health.is_ready else PlainTextResponse("the database does not answer", 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])
