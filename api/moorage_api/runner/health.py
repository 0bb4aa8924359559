"""Whether a runner still works, and what it counts, for a cluster's probes; on one machine nobody asks."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

LONGEST_STALL_SECONDS = 90.0
"""Above what one turn can take while the database hangs, since each of its waits has a bound: no restart would help."""
LONGEST_AWAY_SECONDS = 10.0

RUNS = Gauge("moorage_runner_runs", "Runs that this replica works on")
CLAIMS = Counter("moorage_runner_claims", "Runs that this replica has begun, or taken over")


class Health:
    """Told by the loop that claims runs; it comes round about once a second."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._turned = now()
        self._worked = float("-inf")

    def turned(self) -> None:
        """The loop has come round, whatever it met."""
        self._turned = self._now()

    def worked(self) -> None:
        """It has come round, and could claim what there was."""
        self._turned = self._worked = self._now()

    @property
    def is_alive(self) -> bool:
        return self._now() - self._turned < LONGEST_STALL_SECONDS

    @property
    def is_ready(self) -> bool:
        return self._now() - self._worked < LONGEST_AWAY_SECONDS


def create_health_app(health: Health) -> Starlette:
    """`/healthz`: restart it where not 200. `/readyz`: it takes runs. `/metrics`."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok") if health.is_alive else PlainTextResponse("stalled", 503)

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("ok") if health.is_ready else PlainTextResponse("the database is away", 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])
