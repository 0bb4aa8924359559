"""Clients for configured URLs, of the two libraries that ours are built on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import httpx2

from moorage_api.outbound.policy import Policy, Purpose
from moorage_api.outbound.transports import GuardedTransport, GuardedTransport2, Limits

MAX_REDIRECTS = 3

LIMITS: Final[Mapping[Purpose, Limits]] = {
    "llm": Limits(64 * 1024 * 1024),
    "mcp": Limits(64 * 1024 * 1024),
    "a2a": Limits(16 * 1024 * 1024, seconds=600),
    "skills": Limits(32 * 1024 * 1024, seconds=60),
}


@dataclass(frozen=True)
class Outbound(Policy):
    """The policy, and the clients that keep to it."""

    def client(
        self, purpose: Purpose, url: str, *, named_by: str | None = None, limits: Limits | None = None, **options: Any
    ) -> httpx.AsyncClient:
        """An httpx client for `url`. `options` are httpx's own (headers, timeout)."""
        transport = GuardedTransport(self.guard(purpose, url, named_by=named_by), limits or LIMITS[purpose])
        return httpx.AsyncClient(
            transport=transport, follow_redirects=True, max_redirects=MAX_REDIRECTS, trust_env=False, **options
        )

    def client2(
        self, purpose: Purpose, url: str, *, named_by: str | None = None, limits: Limits | None = None, **options: Any
    ) -> httpx2.AsyncClient:
        """The same for libraries that are built on httpx2."""
        transport = GuardedTransport2(self.guard(purpose, url, named_by=named_by), limits or LIMITS[purpose])
        return httpx2.AsyncClient(
            transport=transport, follow_redirects=True, max_redirects=MAX_REDIRECTS, trust_env=False, **options
        )
