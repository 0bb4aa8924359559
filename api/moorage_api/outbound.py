"""The one way out to URLs that people configure: models, MCP servers, A2A agents, sources of skills.

A connection goes to the address that was checked, so a name that answers differently a moment later gains nothing.
What another server names (a redirect, an agent's card) is trusted less than what a person typed: see `Guard.check_hop`.
Proxies of the environment are not used: behind one, nobody here would see where a request ends.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, get_args

import httpx
import httpx2

from moorage_api.errors import OutboundRefusedError

Purpose = Literal["llm", "mcp", "a2a", "skills"]
PURPOSES: Final[tuple[Purpose, ...]] = get_args(Purpose)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[Address]]]
"""Raises OSError for a name that has no address."""

RESOLVE_SECONDS = 5.0
MAX_REDIRECTS = 3
MAX_URL_CHARS = 2048
DEFAULT_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}

NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "169.254.0.0/16",  # link-local, and with it the metadata services of most clouds
        "100.100.100.200/32",  # metadata, Alibaba
        "168.63.129.16/32",  # metadata, Azure
        "192.0.0.192/32",  # metadata, Oracle
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "64:ff9b:1::/48",  # translated to IPv4 in a way that only the network knows (RFC 8215)
        "2001::/32",  # Teredo: tunnels to an IPv4 address inside
        "fe80::/10",
        "fd00:ec2::254/128",  # metadata, Amazon
        "fd20:ce::254/128",  # metadata, Google
        "ff00::/8",
    )
)
"""Refused whatever the settings say."""

EMBEDDING = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
)
"""IPv6 ranges that stand for an IPv4 address, and how many bits come after it. Sources: RFC 4291, 2765, 6052, 3056."""


@dataclass(frozen=True)
class Limits:
    """Of one response. `seconds` bounds all of it, from the request to its last byte; None for streams."""

    body_bytes: int
    seconds: float | None = None


LIMITS: Final[Mapping[Purpose, Limits]] = {
    "llm": Limits(64 * 1024 * 1024),
    "mcp": Limits(64 * 1024 * 1024),
    "a2a": Limits(16 * 1024 * 1024, seconds=600),
    "skills": Limits(32 * 1024 * 1024, seconds=60),
}


@dataclass(frozen=True)
class Target:
    """Where a URL leads, before any name is looked up."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Target:
        """Raises OutboundRefusedError for what is no plain http or https URL."""
        if len(url) > MAX_URL_CHARS or any(character.isspace() or not character.isprintable() for character in url):
            raise OutboundRefusedError("The URL is too long, or holds blanks or control characters")
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            raise OutboundRefusedError("This is no URL") from None
        if parsed.scheme not in DEFAULT_PORTS:
            raise OutboundRefusedError("Only http and https URLs are used")
        if parsed.userinfo or "\\" in url or "@" in re.split("[/?#]", url.partition("//")[2])[0]:
            raise OutboundRefusedError("The URL must not hold a user or a password")
        host = parsed.raw_host.decode("ascii").rstrip(".").lower()
        if not host:
            raise OutboundRefusedError("The URL names no host")
        check_host(host)
        port = parsed.port or DEFAULT_PORTS[parsed.scheme]
        if not 0 < port < 65536:
            raise OutboundRefusedError("The URL's port is none")
        return cls(parsed.scheme, host, port)


def check_host(host: str) -> None:
    """Numbers that only some readers take for an address (2130706433, 0x7f.1, 017700000001) are nobody's name."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if getattr(address, "scope_id", None) is None:
            return
        raise OutboundRefusedError("An address with a scope is refused")
    last = host.rpartition(".")[2]
    if last.isdigit() or last.startswith("0x") or not last:
        raise OutboundRefusedError("The host is a number in an unusual form: write the address as four numbers")


def plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, else itself."""
    if isinstance(address, ipaddress.IPv6Address):
        for network, shift in EMBEDDING:
            if address in network and int(address) > 1:
                return ipaddress.IPv4Address((int(address) >> shift) & 0xFFFFFFFF)
    return address


def is_never(address: Address) -> bool:
    address = plain(address)
    return any(address in network for network in NEVER if network.version == address.version)


def is_public(address: Address) -> bool:
    return plain(address).is_global and not is_never(address)


async def resolve_by_system(host: str, port: int) -> list[Address]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found))


@dataclass(frozen=True)
class Outbound:
    """The policy. `private`: the purposes that may reach private addresses, this machine's included.

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


@dataclass(frozen=True)
class Guard:
    """Decides, request by request, for one configured URL."""

    policy: Outbound
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


def pinned(target: Target, address: Address, extensions: Mapping[str, Any]) -> dict[str, Any]:
    """TLS still asks for, and checks, the name; the connection goes to `address`."""
    named = {} if target.host == str(address) else {"sni_hostname": target.host}
    return {**extensions, **named}


class TooLongError(Exception):
    """A response is longer, or takes longer, than its limit."""


async def bounded(chunks: AsyncIterator[bytes], limits: Limits, *, deadline: float | None) -> AsyncIterator[bytes]:
    """Pass chunks on until there are too many bytes or too little time. Raises TooLongError."""
    seen = 0
    while True:
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise TooLongError(f"The answer took longer than {limits.seconds:g} s") from error
        seen += len(chunk)
        if seen > limits.body_bytes:
            raise TooLongError(f"The answer is longer than {limits.body_bytes} bytes")
        yield chunk


def check_encoding(encoding: str) -> None:
    """We ask for plain bytes: what comes compressed all the same could unfold to any size."""
    if encoding.strip().lower() not in ("", "identity"):
        raise TooLongError("The answer is compressed, although that was not asked for")


@cache
def tls() -> Any:
    """Takes 50 ms to make and serves every client of the process."""
    return httpx2.create_ssl_context(trust_env=False)


class GuardedTransport(httpx.AsyncBaseTransport):
    """Every request, redirects included, passes the guard. One pool a host, so that TLS is checked for each name."""

    def __init__(self, guard: Guard, limits: Limits) -> None:
        self._guard = guard
        self._limits = limits
        self._pools: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = Target.of(str(request.url.copy_with(fragment=None)))
        deadline = None if self._limits.seconds is None else time.monotonic() + self._limits.seconds
        try:
            addresses = await self._guard.addresses(target)
        except OSError as error:
            raise httpx.ConnectError(str(error), request=request) from error
        request.headers["Accept-Encoding"] = "identity"
        pool = self._pools.setdefault(target.host, httpx.AsyncHTTPTransport(verify=tls(), trust_env=False))
        response = await self._first(pool, request, target, addresses, deadline)
        try:
            check_encoding(response.headers.get("content-encoding", ""))
        except TooLongError as error:
            await response.aclose()
            raise httpx.ReadError(str(error), request=request) from error
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Stream(response.stream, self._limits, deadline)
        return response

    async def _first(
        self,
        pool: httpx.AsyncHTTPTransport,
        request: httpx.Request,
        target: Target,
        addresses: list[Address],
        deadline: float | None,
    ) -> httpx.Response:
        """From the first address that takes the connection; nothing was sent to those that did not."""
        for address in addresses:
            sent = httpx.Request(
                request.method,
                request.url.copy_with(host=str(address)),
                headers=request.headers,
                stream=request.stream,
                extensions=pinned(target, address, request.extensions),
            )
            try:
                async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
                    return await pool.handle_async_request(sent)
            except httpx.ConnectError as error:
                failure: httpx.TransportError = error
            except TimeoutError as error:
                raise httpx.ReadTimeout("The server did not answer in time", request=request) from error
        raise failure

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


class _Stream(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, limits: Limits, deadline: float | None) -> None:
        self._stream = stream
        self._limits = limits
        self._deadline = deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in bounded(aiter(self._stream), self._limits, deadline=self._deadline):
                yield chunk
        except TooLongError as error:
            raise httpx.ReadError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()


class GuardedTransport2(httpx2.AsyncBaseTransport):
    """`GuardedTransport` for httpx2, whose classes are others with the same names."""

    def __init__(self, guard: Guard, limits: Limits) -> None:
        self._guard = guard
        self._limits = limits
        self._pools: dict[str, httpx2.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        target = Target.of(str(request.url.copy_with(fragment=None)))
        deadline = None if self._limits.seconds is None else time.monotonic() + self._limits.seconds
        try:
            addresses = await self._guard.addresses(target)
        except OSError as error:
            raise httpx2.ConnectError(str(error), request=request) from error
        request.headers["Accept-Encoding"] = "identity"
        pool = self._pools.setdefault(target.host, httpx2.AsyncHTTPTransport(verify=tls(), trust_env=False))
        response = await self._first(pool, request, target, addresses, deadline)
        try:
            check_encoding(response.headers.get("content-encoding", ""))
        except TooLongError as error:
            await response.aclose()
            raise httpx2.ReadError(str(error), request=request) from error
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Stream2(response.stream, self._limits, deadline)
        return response

    async def _first(
        self,
        pool: httpx2.AsyncHTTPTransport,
        request: httpx2.Request,
        target: Target,
        addresses: list[Address],
        deadline: float | None,
    ) -> httpx2.Response:
        """From the first address that takes the connection; nothing was sent to those that did not."""
        for address in addresses:
            sent = httpx2.Request(
                request.method,
                request.url.copy_with(host=str(address)),
                headers=request.headers,
                stream=request.stream,
                extensions=pinned(target, address, request.extensions),
            )
            try:
                async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
                    return await pool.handle_async_request(sent)
            except httpx2.ConnectError as error:
                failure: httpx2.TransportError = error
            except TimeoutError as error:
                raise httpx2.ReadTimeout("The server did not answer in time", request=request) from error
        raise failure

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


class _Stream2(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, limits: Limits, deadline: float | None) -> None:
        self._stream = stream
        self._limits = limits
        self._deadline = deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in bounded(aiter(self._stream), self._limits, deadline=self._deadline):
                yield chunk
        except TooLongError as error:
            raise httpx2.ReadError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()
