"""The settings of the sandbox host, which come from its command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moorage_common import MIB


@dataclass(frozen=True)
class HostSettings:
    """`uid_base` and `uid_count`: the range of kernel users for sandboxes, used if the host runs as root.

    No other program may use these users. Two hosts on one machine that both run as root need different ranges.
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
    """Directories with programs of stdio MCP servers outside of /usr. The servers can read them."""
    unresponsive_seconds: float = 20
    """A gate or box that does not answer for so long is restarted. Commands may have used all allowed processes."""
    uid_base: int = 600_000
    uid_count: int = 65_536

    @property
    def commands_socket(self) -> Path:
        """The socket for stdio MCP servers, beside the host's own. See `moorage_sandbox.mcp_commands`."""
        return self.socket.with_name("commands.sock")
