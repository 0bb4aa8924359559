"""Which loopback ports the services listen on: the same ones each time, others when those are taken."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path

from moorage_local.files import write_private


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now. All are held until the last is found, so they differ."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()


class PortBook:
    """Ports by service and use, kept in a file so that tools pointed at a service still find it tomorrow."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def known(self, service: str) -> dict[str, int]:
        """The ports it had last, by use. Empty for a service that never ran."""
        return self._read().get(service, {})

    def _read(self) -> dict[str, dict[str, int]]:
        book: dict[str, dict[str, int]] = json.loads(self._path.read_text()) if self._path.exists() else {}
        return book

    def take(self, service: str, uses: Sequence[str]) -> dict[str, int]:
        """The ports of `service`, by use. Each is kept as long as nobody else listens on it."""
        book = self._read()
        known = book.get(service, {})
        replacements = free_ports(len(uses))
        ports = {
            use: known[use] if use in known and is_free(known[use]) else replacement
            for use, replacement in zip(uses, replacements, strict=True)
        }
        if ports != known:
            write_private(self._path, json.dumps({**book, service: ports}, indent=2))
        return ports
