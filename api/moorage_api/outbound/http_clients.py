"""HTTP clients for configured URLs, for libraries that use httpx and for libraries that use httpx2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import httpx2

from moorage_api.outbound.policy import Policy, Purpose
from moorage_api.outbound.transports import GuardedTransport, GuardedTransport2, ResponseLimits

MAX_REDIRECTS = 3

LIMITS: Final[Mapping[Purpose, ResponseLimits]] = {
    "llm": ResponseLimits(64 * 1024 * 1024),
    "mcp": ResponseLimits(64 * 1024 * 1024),
    "a2a": ResponseLimits(16 * 1024 * 1024, seconds=600),
    "skills": ResponseLimits(32 * 1024 * 1024, seconds=60),
}


@dataclass(frozen=True)
class Outbound(Policy):
    """The policy, and clients that enforce it."""

    def client(
        self,
        purpose: Purpose,
        url: str,
        *,
        named_by: str | None = None,
        limits: ResponseLimits | None = None,
        **options: Any,
    ) -> httpx.AsyncClient:
        """An httpx client for `url`. `options` are passed to httpx (headers, timeout)."""
        transport = GuardedTransport(self.guard(purpose, url, named_by=named_by), limits or LIMITS[purpose])
        return httpx.AsyncClient(
            transport=transport, follow_redirects=True, max_redirects=MAX_REDIRECTS, trust_env=False, **options
        )

    def client2(
        self,
        purpose: Purpose,
        url: str,
        *,
        named_by: str | None = None,
        limits: ResponseLimits | None = None,
        **options: Any,
    ) -> httpx2.AsyncClient:
        """An httpx2 client for `url`; see `client`."""
        transport = GuardedTransport2(self.guard(purpose, url, named_by=named_by), limits or LIMITS[purpose])
        return httpx2.AsyncClient(
            transport=transport, follow_redirects=True, max_redirects=MAX_REDIRECTS, trust_env=False, **options
        )
