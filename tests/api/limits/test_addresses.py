"""The address that counts for limits, with and without proxies."""

from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from moorage_api.limits.addresses import client_address, parse_networks
from moorage_api.settings import Settings

PROXIES = parse_networks(["10.0.0.0/8", "127.0.0.1", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["1.1.1.1, 198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.1.2.3", ["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["198.51.100.1:5511"], "198.51.100.1"),
        ("10.1.2.3", ["nonsense"], "10.1.2.3"),
        ("10.1.2.3", ["198.51.100.1, nonsense, 10.9.9.9"], "10.9.9.9"),
        ("10.1.2.3", ["10.4.4.4"], "10.4.4.4"),
        ("::ffff:10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", [], "2001:db8:1:2::/64"),
        ("", [], "unknown"),
    ],
)
def test_the_right_most_untrusted_hop_counts(peer: str, forwarded: list[str], address: str) -> None:
    scope = {
        "type": "http",
        "client": (peer, 1234),
        "headers": [(b"x-forwarded-for", text.encode()) for text in forwarded],
    }
    assert client_address(HTTPConnection(scope), PROXIES) == address


def test_without_trusted_proxies_the_header_is_ignored() -> None:
    scope = {"type": "http", "client": ("127.0.0.1", 1), "headers": [(b"x-forwarded-for", b"198.51.100.1")]}
    assert client_address(HTTPConnection(scope), ()) == "127.0.0.1"


def test_the_defaults_are_those_of_the_wire_document() -> None:
    names = ("window_seconds", "reads", "writes", "chats", "streams", "screens")
    assert [Settings.model_fields[f"limit_{name}"].default for name in names] == [60, 120, 60, 60, 10, 5]
