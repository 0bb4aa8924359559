"""Where a URL leads: which host and port it names, and what kind of address that is."""

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
"""Raises OSError for a name that has no address."""

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


GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that IANA gives out. Python calls more of IPv6 global: the old site-local fec0::/10, which sites still route."""


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
    address = plain(address)
    if isinstance(address, ipaddress.IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    return address.is_global and not is_never(address)


async def resolve_by_system(host: str, port: int) -> list[Address]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found))
