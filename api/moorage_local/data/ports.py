"""Choose the loopback ports of the services: the same ports each time, and new ones if those are in use."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path

from moorage_local.data.private_files import write_private


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, so that TIME_WAIT does not matter
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Find `count` different free ports."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()


class PortBook:
    """A file with the ports of each service by use, so that a service keeps its ports between two starts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def last_ports(self, service: str) -> dict[str, int]:
        """The service's last ports by use. Empty if it never ran."""
        return self._read().get(service, {})

    def _read(self) -> dict[str, dict[str, int]]:
        book: dict[str, dict[str, int]] = json.loads(self._path.read_text()) if self._path.exists() else {}
        return book

    def take(self, service: str, uses: Sequence[str]) -> dict[str, int]:
        """Return the service's ports by use. A port is replaced only if another program listens on it."""
        book = self._read()
        last_ports = book.get(service, {})
        replacements = free_ports(len(uses))
        ports = {
            use: last_ports[use] if use in last_ports and is_free(last_ports[use]) else replacement
            for use, replacement in zip(uses, replacements, strict=True)
        }
        if ports != last_ports:
            write_private(self._path, json.dumps({**book, service: ports}, indent=2))
        return ports
