"""What may be reached, and for what. See docs/decisions/0050."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, get_args

from moorage_api.errors import OutboundRefusedError
from moorage_api.outbound.addresses import (
    DEFAULT_PORTS,
    Address,
    Resolver,
    Target,
    is_never,
    is_public,
    resolve_by_system,
)

Purpose = Literal["llm", "mcp", "a2a", "skills"]
PURPOSES: Final[tuple[Purpose, ...]] = get_args(Purpose)
RESOLVE_SECONDS = 5.0


@dataclass(frozen=True)
class Policy:
    """`private`: the purposes that may reach private addresses, this machine's included.

    `closed_ports` are the platform's own services on this machine: nobody's configuration leads there.
    """

    private: frozenset[Purpose] = frozenset({"llm", "mcp", "a2a"})
    closed_ports: frozenset[int] = frozenset()
    resolve: Resolver = resolve_by_system

    def guard(self, purpose: Purpose, url: str, *, named_by: str | None = None) -> Guard:
        """For requests to `url` and what it redirects to. Raises OutboundRefusedError for a URL that is none.

        `named_by`: the configured URL whose server named this one; then private addresses need its very host.
        """
        target = Target.of(url)
        private = purpose in self.private and (named_by is None or Target.of(named_by).host == target.host)
        return Guard(self, purpose, target, private=private)

    async def check(self, purpose: Purpose, url: str, *, named_by: str | None = None) -> None:
        """Refuse a URL when it is configured. A name that cannot be looked up now is let through: it may be later."""
        guard = self.guard(purpose, url, named_by=named_by)
        with suppress(OSError):
            await guard.addresses(guard.configured)


@dataclass(frozen=True)
class Guard:
    """Decides, request by request, for one configured URL."""

    policy: Policy
    purpose: Purpose
    configured: Target
    private: bool

    def check_hop(self, target: Target) -> bool:
        """Whether `target` may be private. Raises OutboundRefusedError where a redirect may not lead at all.

        Keys go along with a request, so only skills, which have none, may be sent to another host, a public one.
        """
        configured = self.configured
        if target == configured:
            return self.private
        if configured.scheme == "https" and target.scheme != "https":
            raise OutboundRefusedError("A redirect from https to http is not followed")
        upgraded = Target("https", configured.host, 443)
        if configured.port == DEFAULT_PORTS["http"] and target == upgraded:
            return self.private
        if self.purpose != "skills":
            raise OutboundRefusedError("A redirect to another server is not followed: configure the address it names")
        return False

    async def addresses(self, target: Target) -> list[Address]:
        """Where to connect, in order. Raises OutboundRefusedError, or OSError for a name without an address."""
        private = self.check_hop(target)
        try:
            found: Collection[Address] = [ipaddress.ip_address(target.host)]
        except ValueError:
            try:
                async with asyncio.timeout(RESOLVE_SECONDS):
                    found = await self.policy.resolve(target.host, target.port)
            except (TimeoutError, UnicodeError) as error:
                raise OSError(f"{target.host} could not be looked up") from error
        if not found:
            raise OSError(f"{target.host} has no address")
        for address in found:
            self._check_address(address, target, private=private)
        return list(found)

    def _check_address(self, address: Address, target: Target, *, private: bool) -> None:
        if is_never(address):
            raise OutboundRefusedError(f"{target.host} leads to an address that is never used")
        if is_public(address):
            return
        if not private:
            raise OutboundRefusedError(
                f"{target.host} leads to a private address, which MOORAGE_OUTBOUND_PRIVATE does not allow here"
            )
        if target.port in self.policy.closed_ports:
            raise OutboundRefusedError(f"{target.host}:{target.port} is a service of this platform")
