"""Parse a URL into host and port, and classify IP addresses: never allowed, public or private."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import httpx

from moorage_api.errors import OutboundRefusedError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[Address]]]
"""Looks up a host name. Raises OSError for a name without an address."""

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
        "64:ff9b:1::/48",  # each network defines its own translation to IPv4 (RFC 8215)
        "2001::/32",  # Teredo: a tunnel to the IPv4 address that it contains
        "fe80::/10",
        "fd00:ec2::254/128",  # metadata, Amazon
        "fd20:ce::254/128",  # metadata, Google
        "ff00::/8",
    )
)
"""These ranges are refused with any settings."""

EMBEDDING = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
)
"""IPv6 ranges that contain an IPv4 address, and how many bits follow it. Sources: RFC 4291, 2765, 6052, 3056."""


GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""The range that IANA assigns. Python's `is_global` is true for more, such as the old site-local fec0::/10."""


@dataclass(frozen=True)
class Target:
    """Scheme, host and port of a URL, before the host name is looked up."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Target:
        """Parse the URL. Raises OutboundRefusedError unless it is an ordinary http or https URL."""
        if len(url) > MAX_URL_CHARS or any(character.isspace() or not character.isprintable() for character in url):
            raise OutboundRefusedError(
                f"The URL is longer than {MAX_URL_CHARS} characters, or contains spaces or control characters"
            )
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            raise OutboundRefusedError(
                "The URL is not valid; write it in full, such as https://example.org/v1"
            ) from None
        if parsed.scheme not in DEFAULT_PORTS:
            raise OutboundRefusedError(f"The URL has the scheme {parsed.scheme!r}; only http and https are allowed")
        if parsed.userinfo or "\\" in url or "@" in re.split("[/?#]", url.partition("//")[2])[0]:
            raise OutboundRefusedError("The URL must not contain a user name or a password")
        host = parsed.raw_host.decode("ascii").rstrip(".").lower()
        if not host:
            raise OutboundRefusedError("The URL has no host")
        check_host(host)
        port = parsed.port or DEFAULT_PORTS[parsed.scheme]
        if not 0 < port < 65536:
            raise OutboundRefusedError(f"The URL has an invalid port: {port}")
        return cls(parsed.scheme, host, port)


def check_host(host: str) -> None:
    """Raise OutboundRefusedError for a number that only some programs read as an address.

    Examples: 2130706433, 0x7f.1, 017700000001.
    """
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if getattr(address, "scope_id", None) is None:
            return
        raise OutboundRefusedError("The IPv6 address must not have a scope (the part after `%`)")
    last = host.rpartition(".")[2]
    if last.isdigit() or last.startswith("0x") or not last:
        raise OutboundRefusedError(
            f"The host {host!r} is a number in an unusual form: write the address as four numbers, such as 192.0.2.1"
        )


def unwrap_ipv4(address: Address) -> Address:
    """The IPv4 address that an IPv6 address contains, otherwise the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        for network, shift in EMBEDDING:
            if address in network and int(address) > 1:
                return ipaddress.IPv4Address((int(address) >> shift) & 0xFFFFFFFF)
    return address


def is_never_allowed(address: Address) -> bool:
    address = unwrap_ipv4(address)
    return any(address in network for network in NEVER if network.version == address.version)


def is_public(address: Address) -> bool:
    address = unwrap_ipv4(address)
    if isinstance(address, ipaddress.IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    return address.is_global and not is_never_allowed(address)


async def resolve_by_system(host: str, port: int) -> list[Address]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found))
