"""The names of the sessions that need to be reconciled.

One worker at a time works on a name. If the name is added meanwhile, it is worked on once more afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from moorage_common.backoff import Backoff
from moorage_common.logging_setup import log_context
from moorage_crds.names import session_id_of
from moorage_kube.client import KubeError
from moorage_operator import metrics

logger = logging.getLogger(__name__)

RETRY_BACKOFF = Backoff(0.5, 60.0)

Work = Callable[[str], Awaitable[float | None]]
"""Works on a name. Returns after how many seconds the name must be worked on again, or None. A KubeError is retried."""


class WorkQueue:
    def __init__(self, work: Work, *, workers: int) -> None:
        self._work = work
        self._workers = workers
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()
        """The names in `_ready`."""
        self._running: set[str] = set()
        self._again: set[str] = set()
        """The names that were added while a worker worked on them."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}

    def add(self, name: str) -> None:
        if name in self._running:
            self._again.add(name)
        elif name not in self._waiting:
            self._waiting.add(name)
            self._ready.put_nowait(name)
            metrics.QUEUE_LENGTH.set(len(self._waiting))

    def add_all(self, names: Iterable[str]) -> None:
        for name in names:
            self.add(name)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._run_worker())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def _run_worker(self) -> None:
        while True:
            name = await self._ready.get()
            self._waiting.discard(name)
            self._running.add(name)
            metrics.QUEUE_LENGTH.set(len(self._waiting))
            self._cancel_timer(name)
            began = time.perf_counter()
            try:
                with log_context(session_id=session_id_of(name)):
                    wait = await self._work_once(name)
            finally:
                metrics.RECONCILES.observe(time.perf_counter() - began)
                self._running.discard(name)
            if name in self._again:
                self._again.discard(name)
                self.add(name)
            elif wait is not None:
                self._timers[name] = asyncio.get_running_loop().call_later(wait, self._add_due, name)

    async def _work_once(self, name: str) -> float | None:
        """Work on a name. Returns after how many seconds it must be worked on again, also after a KubeError."""
        try:
            wait = await self._work(name)
        except KubeError as error:
            return self._record_failure(name, error)
        self._failures.pop(name, None)
        return wait

    def _add_due(self, name: str) -> None:
        self._timers.pop(name, None)
        self.add(name)

    def _cancel_timer(self, name: str) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()

    def _record_failure(self, name: str, error: KubeError) -> float:
        """Count and log a failure. Returns the seconds until the next attempt."""
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        metrics.RECONCILE_FAILURES.labels(reason=error.reason or str(error.status)).inc()
        wait = RETRY_BACKOFF.pause_seconds(failures)
        logger.warning(
            "A session could not be reconciled, will try again",
            extra={"error": str(error), "seconds": wait},
        )
        return wait
