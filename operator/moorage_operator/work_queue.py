"""Names that want a pass. Each is worked on by one worker at a time; what comes meanwhile is one more pass after it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from moorage_common.backoff import Backoff
from moorage_kube.client import KubeError
from moorage_operator import metrics

logger = logging.getLogger(__name__)

BACKOFF = Backoff(0.5, 60.0)

Pass = Callable[[str], Awaitable[float | None]]
"""Works on a name; returns after how many seconds it wants another pass, if at all. Raises KubeError to be retried."""


class WorkQueue:
    def __init__(self, work: Pass, *, workers: int) -> None:
        self._work = work
        self._workers = workers
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()
        self._running: set[str] = set()
        self._again: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}

    def add(self, name: str) -> None:
        if name in self._running:
            self._again.add(name)
        elif name not in self._waiting:
            self._waiting.add(name)
            self._ready.put_nowait(name)
            metrics.WAITING.set(len(self._waiting))

    def add_all(self, names: Iterable[str]) -> None:
        for name in names:
            self.add(name)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._serve())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def _serve(self) -> None:
        while True:
            name = await self._ready.get()
            self._waiting.discard(name)
            self._running.add(name)
            metrics.WAITING.set(len(self._waiting))
            self._cancel_timer(name)
            began = time.perf_counter()
            try:
                wait = await self._work(name)
                self._failures.pop(name, None)
            except KubeError as error:
                wait = self._retry_after(name, error)
            finally:
                metrics.PASSES.observe(time.perf_counter() - began)
                self._running.discard(name)
            if name in self._again:
                self._again.discard(name)
                self.add(name)
            elif wait is not None:
                self._timers[name] = asyncio.get_running_loop().call_later(wait, self._due, name)

    def _due(self, name: str) -> None:
        self._timers.pop(name, None)
        self.add(name)

    def _cancel_timer(self, name: str) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()

    def _retry_after(self, name: str, error: KubeError) -> float:
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        metrics.FAILED_PASSES.labels(reason=error.reason or str(error.status)).inc()
        wait = BACKOFF.pause_seconds(failures)
        logger.warning("A pass failed, will try again", extra={"session": name, "error": str(error), "seconds": wait})
        return wait
