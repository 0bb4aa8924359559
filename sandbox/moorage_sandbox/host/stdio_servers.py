"""Runs stdio MCP servers on this machine. Each runs in bubblewrap, with its own user, home and network."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

from moorage_common import MIB
from moorage_sandbox import mcp_commands
from moorage_sandbox.host.confinement import limits
from moorage_sandbox.host.confinement.identities import identity_of
from moorage_sandbox.host.confinement.limits import ResourceLimits
from moorage_sandbox.host.processes.launcher import LaunchError
from moorage_sandbox.host.sandboxes import layout
from moorage_sandbox.host.sandboxes.layout import StoredFiles
from moorage_sandbox.host.sandboxes.parts import SandboxParts, SharedResources
from moorage_sandbox.host.sandboxes.registry import LimitReachedError, Registry
from moorage_sandbox.host.settings import HostSettings
from moorage_sandbox.mcp_commands import McpCommand, McpCommandError

logger = logging.getLogger(__name__)

MAX_COMMANDS = 32
LIMITS = ResourceLimits(memory_bytes=1024 * MIB, processes=128, cpus=1)
STARTED = b"+"
"""The byte that the confined process writes right before it executes the command."""


class SocketStdio:
    """The stdin and stdout of a confined command, which are one socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()

    async def read(self) -> bytes:
        return await self._loop.sock_recv(self._connection, mcp_commands.CHUNK_BYTES)

    async def write(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._connection, data)


class StdioServers:
    """Serves the protocol of `moorage_sandbox.mcp_commands` on its own socket, beside the host's."""

    def __init__(self, settings: HostSettings, shared: SharedResources, registry: Registry) -> None:
        self._settings = settings
        self._shared = shared
        self._registry = registry
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=mcp_commands.REQUEST_BYTES)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # No token is needed, because only our own user can open the socket.
        task = asyncio.create_task(mcp_commands.serve_connection(reader, writer, token="", run=self.run))
        self._tasks.add(task)
        task.add_done_callback(self._on_ended)

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("A command failed unexpectedly", exc_info=error)

    @asynccontextmanager
    async def run(self, command: McpCommand) -> AsyncIterator[SocketStdio]:
        if len(self._tasks) > MAX_COMMANDS:
            raise McpCommandError(
                f"Already {MAX_COMMANDS} commands run, which is the limit. Try again when one has ended"
            )
        key = uuid4()
        try:
            slot = self._registry.take_slot(key)
        except LimitReachedError as error:
            raise McpCommandError(str(error)) from error
        try:
            async with self._run_confined(command, key, slot) as stdio:
                yield stdio
        except (LaunchError, OSError) as error:
            raise McpCommandError(f"{command.argv[0]} was not started: {error}") from error
        finally:
            self._registry.release_slot(key)

    @asynccontextmanager
    async def _run_confined(self, command: McpCommand, key: UUID, slot: int) -> AsyncIterator[SocketStdio]:
        """Run the command in bubblewrap. Its home is in the trash folder, so a host that is killed leaves no files."""
        identity = identity_of(slot, uid_base=self._settings.uid_base)
        stored = StoredFiles(self._shared.layout.trash / key.hex)
        runtime = self._shared.layout.runtime_files(slot)
        stored.root.mkdir(mode=0o700)
        layout.make_stored_files(stored, identity)
        layout.make_runtime_files(runtime, identity)
        group = limits.make_group(self._shared.parents, f"moorage-{self._shared.layout.name}-{slot}", LIMITS)
        parts = SandboxParts(
            sandbox_uid="",
            identity=identity,
            stored=stored,
            runtime=runtime,
            shared=self._shared,
            group=group,
            note=self._note,
        )
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            async with parts.run_command(theirs, self._settings.command_paths, LIMITS) as child:
                theirs.close()
                stdio = SocketStdio(ours)
                request = json.dumps({"argv": list(command.argv), "env": dict(command.env)}).encode()
                await stdio.write(len(request).to_bytes(4, "big") + request)
                if await asyncio.get_running_loop().sock_recv(ours, 1) != STARTED:
                    await child.wait()
                    raise McpCommandError(child.lines[-1] if child.lines else f"{command.argv[0]} was not started")
                yield stdio
        finally:
            for one in (ours, theirs):
                one.close()
            await group.remove()
            layout.remove_runtime_files(runtime)
            self._registry.delete_later(stored.root)

    @staticmethod
    def _note(subject: str, text: str) -> None:
        if text:
            logger.warning("A command's %s: %s", subject, text)
