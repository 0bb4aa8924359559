"""Find the client's address of a request that may have passed proxies."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.requests import HTTPConnection

Network = IPv4Network | IPv6Network

OWN_PREFIX_BITS = 64
"""An IPv6 client usually owns a whole /64 network, so the network counts as one address."""

UNKNOWN_ADDRESS = "unknown"


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parse addresses and networks. Raises ValueError for any other text."""
    return tuple(ip_network(text, strict=False) for text in texts)


def client_address(connection: HTTPConnection, trusted: Sequence[Network]) -> str:
    """Return the right-most hop that is not a trusted proxy.

    Each proxy appends the address of its own client to X-Forwarded-For, so the header is read from the right, as long
    as the hops are trusted proxies. Entries that a client invented are further left and never used.
    """
    peer = _parse(connection.client.host if connection.client else "")
    if peer is None:
        return UNKNOWN_ADDRESS
    if trusted and _is_trusted(peer, trusted):
        written = ",".join(connection.headers.getlist("x-forwarded-for"))
        for text in reversed(written.split(",")):
            hop = _parse(text.strip())
            if hop is None:
                break
            peer = hop
            if not _is_trusted(hop, trusted):
                break
    return _format_address(peer)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Parse one hop, which may have a port. None if it is not an address."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _is_trusted(address: IPv4Address | IPv6Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _format_address(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv6Address):
        return str(ip_network((int(address), OWN_PREFIX_BITS), strict=False))
    return str(address)
