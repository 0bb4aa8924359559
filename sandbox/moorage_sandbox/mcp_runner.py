"""Runs stdio MCP servers on a cluster, in their own container, which holds no secret of the platform.

A restricted pod cannot change users or make namespaces, so the container and its network policy confine the servers.
Each server gets its own environment and directory. On one machine the sandbox host runs the servers instead.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from moorage_common.logging_setup import configure_logging
from moorage_sandbox import mcp_commands
from moorage_sandbox.mcp_commands import McpCommand, McpCommandError

logger = logging.getLogger(__name__)

KEPT_VARIABLES = ("PATH", "LANG", "TZ")
GRACE_SECONDS = 2.0
MAX_COMMANDS = 64
KEEPALIVE_OPTIONS = {
    socket.TCP_KEEPIDLE: 30,
    socket.TCP_KEEPINTVL: 10,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 60_000,
}
"""If the node of a client fails, the connection is not closed. With these options its command ends within a minute."""


class PipeStdio:
    """The stdio of a child process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    async def read(self) -> bytes:
        return await self._stdout.read(mcp_commands.CHUNK_BYTES)

    async def write(self, data: bytes) -> None:
        self._stdin.write(data)
        await self._stdin.drain()

    def close(self) -> None:
        self._stdin.close()


class CommandRunner:
    """`run` runs one command. At most MAX_COMMANDS run at a time."""

    def __init__(self) -> None:
        self._running = 0

    @asynccontextmanager
    async def run(self, command: McpCommand) -> AsyncIterator[PipeStdio]:
        if self._running >= MAX_COMMANDS:
            raise McpCommandError(
                f"Already {MAX_COMMANDS} commands run, which is the limit. Try again when one has ended"
            )
        self._running += 1
        home = tempfile.mkdtemp(prefix="mcp-")
        try:
            async with self._process(command, home) as process:
                yield PipeStdio(process)
        finally:
            self._running -= 1
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)

    @asynccontextmanager
    async def _process(self, command: McpCommand, home: str) -> AsyncIterator[asyncio.subprocess.Process]:
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        try:
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                env={**kept, "HOME": home, **command.env},
                cwd=home,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # it may contain secrets
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a valid command"
            raise McpCommandError(f"{command.argv[0]} cannot be started: {reason}") from error
        logger.info("Started %s, pid %s", command.argv[0], process.pid)
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE_SECONDS):
                    await process.wait()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the command, and the processes that it started
            await process.wait()
            logger.info("Ended %s, pid %s", command.argv[0], process.pid)


async def is_answering(port: int) -> bool:
    """Send an invalid request to the runner at `port` and tell whether it answers. For probes; it runs no command."""
    try:
        async with asyncio.timeout(mcp_commands.REQUEST_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"\n")
                return bool(await reader.readline())
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def serve(*, host: str, port: int, token: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = CommandRunner()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(mcp_commands.serve_connection(reader, writer, token=token, run=runner.run))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, host, port, limit=mcp_commands.REQUEST_BYTES)
    for option, value in KEEPALIVE_OPTIONS.items():  # accepted connections inherit them
        server.sockets[0].setsockopt(socket.IPPROTO_TCP, option, value)
    server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    logger.info("Listening on %s:%s", *server.sockets[0].getsockname()[:2])
    await stop.wait()
    server.close()
    for task in tuple(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="moorage mcp-runner", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="The address to listen on.")
    parser.add_argument("--port", type=int, default=8091, help="The port to listen on.")
    purpose = parser.add_mutually_exclusive_group(required=True)
    purpose.add_argument("--token-file", type=Path, help="A file with the token that api and runners send.")
    purpose.add_argument("--check", action="store_true", help="Only check that a server answers at this port.")
    return parser


def main() -> None:
    arguments = argument_parser().parse_args()
    if arguments.check:
        sys.exit(0 if asyncio.run(is_answering(arguments.port)) else f"No runner answers at port {arguments.port}")
    configure_logging()
    token = arguments.token_file.read_text().strip()
    if len(token) < 32:
        logger.error("The token in %s has %d characters. It must have at least 32.", arguments.token_file, len(token))
        sys.exit(1)
    asyncio.run(serve(host=arguments.host, port=arguments.port, token=token))


if __name__ == "__main__":
    main()
