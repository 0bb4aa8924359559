"""What the host is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024


@dataclass(frozen=True)
class HostSettings:
    """`uid_base` and `uid_count`: the kernel's users for sandboxes, when the host is root. Nobody else may have them.

    Two hosts on one machine that both run as root need ranges of their own.
    """

    socket: Path
    data_dir: Path
    trust_file: Path
    max_sandboxes: int = 20
    memory_bytes: int = 4096 * MIB
    processes: int = 512
    cpus: float = 2
    network: bool = True
    command_paths: tuple[Path, ...] = ()
    """Directories that stdio MCP servers are shown, read-only: their programs, where /usr does not hold them."""
    unresponsive_seconds: float = 20
    """A gate or a box that does not answer for so long is started anew: commands may have used up its processes."""
    uid_base: int = 600_000
    uid_count: int = 65_536

    @property
    def commands_socket(self) -> Path:
        """Beside the host's own: where stdio MCP servers are asked for, see `moorage_sandbox.mcp_commands`."""
        return self.socket.with_name("commands.sock")
