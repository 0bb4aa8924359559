"""Ask a server for a model's window, and remember for a while which servers could not say it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2

from moorage_api.agent.model.servers.windows import find_window
from moorage_api.errors import OutboundRefusedError
from moorage_api.outbound import Outbound, ResponseLimitError, ResponseLimits

LISTING_LIMITS = ResponseLimits(8 * 1024 * 1024, seconds=5)
"""Limits of what a server says about itself, such as its list of models."""
LONG_SECONDS = 0.5
"""A failure that takes longer is remembered."""
UNANSWERED_STATUSES = frozenset({401, 403, 408, 429, 500, 502, 503, 504})
"""Of a server that could not say what it knows about its window."""


class ListingFailures:
    """The servers that needed long to fail to list their models. One for each process, so that turns do not wait again.

    A server that fails at once is asked again in the next turn, because that takes no time.
    """

    def __init__(self, retry_seconds: float = 600.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._retry_seconds = retry_seconds
        self._failed_at: dict[int, float] = {}
        self.clock = clock

    def is_recent(self, server: int) -> bool:
        return server in self._failed_at and self.clock() - self._failed_at[server] < self._retry_seconds

    def add(self, server: int, *, began_at: float) -> None:
        now = self.clock()
        self._failed_at = {known: at for known, at in self._failed_at.items() if now - at < self._retry_seconds}
        if now - began_at >= LONG_SECONDS:
            self._failed_at[server] = now


class WindowListing:
    """What one server says about the window of a model."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        outbound: Outbound,
        failures: ListingFailures,
        limits: ResponseLimits = LISTING_LIMITS,
    ) -> None:
        self._base_url = base_url
        self._headers = headers
        self._outbound = outbound
        self._failures = failures
        self._limits = limits
        # with the headers, so that a corrected key is tried at once
        self._server = hash((base_url, *sorted(headers.items())))

    async def ask(self, model: str) -> tuple[int | None, bool]:
        """The window that the server says it has, and whether the server could be asked."""
        if self._failures.is_recent(self._server):
            return None, False
        began_at = self._failures.clock()
        tokens, is_answered = await self._ask(model)
        if not is_answered:
            self._failures.add(self._server, began_at=began_at)
        return tokens, is_answered

    async def _ask(self, model: str) -> tuple[int | None, bool]:
        try:
            client = self._outbound.client2(
                "llm", self._base_url, limits=self._limits, timeout=self._limits.seconds, headers=self._headers
            )
        except OutboundRefusedError:
            return None, False
        failures: list[str] = []

        async def get(url: str) -> Any:
            try:
                response = await client.get(url)
                if response.status_code in UNANSWERED_STATUSES:
                    failures.append(url)
                return response.json() if response.status_code == 200 else None
            except (httpx2.HTTPError, OutboundRefusedError, ResponseLimitError, OSError):
                failures.append(url)
                return None
            except (ValueError, RecursionError):
                return None

        async with client:
            tokens = await find_window(get, base_url=self._base_url, model=model)
        return tokens, tokens is not None or not failures
