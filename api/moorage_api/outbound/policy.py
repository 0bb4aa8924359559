"""Which addresses each purpose may reach. See docs/decisions/0050."""

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
    is_never_allowed,
    is_public,
    resolve_by_system,
)

Purpose = Literal["llm", "mcp", "a2a", "skills"]
PURPOSES: Final[tuple[Purpose, ...]] = get_args(Purpose)
RESOLVE_SECONDS = 5.0


@dataclass(frozen=True)
class Policy:
    """`private`: the purposes that may reach private addresses, including those of this machine.

    `closed_ports`: ports of the platform's own services. Requests to them at private addresses are refused.
    """

    private: frozenset[Purpose] = frozenset({"llm", "mcp", "a2a"})
    closed_ports: frozenset[int] = frozenset()
    resolve: Resolver = resolve_by_system

    def guard(self, purpose: Purpose, url: str, *, named_by: str | None = None) -> Guard:
        """A guard for requests to `url` and its redirects. Raises OutboundRefusedError for an invalid URL.

        `named_by`: the configured URL whose server sent us `url`. Then a private address is allowed only on its host.
        """
        target = Target.of(url)
        private = purpose in self.private and (named_by is None or Target.of(named_by).host == target.host)
        return Guard(self, purpose, target, private=private)

    async def check(self, purpose: Purpose, url: str, *, named_by: str | None = None) -> None:
        """Check a URL that is being configured. Raises OutboundRefusedError.

        A name that cannot be looked up now is accepted, because it may exist later.
        """
        guard = self.guard(purpose, url, named_by=named_by)
        with suppress(OSError):
            await guard.addresses(guard.configured)


@dataclass(frozen=True)
class Guard:
    """Checks each request to one configured URL."""

    policy: Policy
    purpose: Purpose
    configured: Target
    private: bool

    def check_hop(self, target: Target) -> bool:
        """Whether `target` may have a private address. Raises OutboundRefusedError for a forbidden redirect.

        A redirected request carries the API key along. Requests for skills have no key, so only they may be redirected
        to another host, and only to a public one.
        """
        configured = self.configured
        if target == configured:
            return self.private
        if configured.scheme == "https" and target.scheme != "https":
            raise OutboundRefusedError(f"The redirect from https to http ({target.host}) is not followed")
        upgraded = Target("https", configured.host, 443)
        if configured.port == DEFAULT_PORTS["http"] and target == upgraded:
            return self.private
        if self.purpose != "skills":
            raise OutboundRefusedError(
                f"The redirect to another server ({target.host}:{target.port}) is not followed: "
                "configure the URL of that server"
            )
        return False

    async def addresses(self, target: Target) -> list[Address]:
        """The checked addresses to try, in order. Raises OutboundRefusedError; OSError for a name without address."""
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
        if is_never_allowed(address):
            raise OutboundRefusedError(
                f"{target.host} has a link-local, metadata or reserved address, which is never allowed"
            )
        if is_public(address):
            return
        if not private:
            raise OutboundRefusedError(
                f"{target.host} has a private address. To allow private addresses here, add `{self.purpose}` to "
                "MOORAGE_OUTBOUND_PRIVATE"
            )
        if target.port in self.policy.closed_ports:
            raise OutboundRefusedError(
                f"{target.host}:{target.port} is an internal service of this platform, which must not be configured"
            )
