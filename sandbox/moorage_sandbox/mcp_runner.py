"""Runs stdio MCP servers on a cluster, in a container of their own that holds no secret of the platform.

A restricted pod can change no user and make no namespace, so the container is what confines them, with its network
policy; each process gets an environment and a directory of its own. On one machine the sandbox host does this instead.
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

from moorage_common.logs import configure_logging
from moorage_sandbox import mcp_commands
from moorage_sandbox.mcp_commands import McpCommand, McpCommandError

log = logging.getLogger(__name__)

KEPT_VARIABLES = ("PATH", "LANG", "TZ")
GRACE_SECONDS = 2.0
MAX_COMMANDS = 64
LIFE_SIGNS = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3, socket.TCP_USER_TIMEOUT: 60_000}
"""A caller whose node is gone says no goodbye: within a minute its command ends all the same."""


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
    """`run` starts one command. At most MAX_COMMANDS at a time."""

    def __init__(self) -> None:
        self._running = 0

    @asynccontextmanager
    async def run(self, command: McpCommand) -> AsyncIterator[PipeStdio]:
        if self._running >= MAX_COMMANDS:
            raise McpCommandError(f"At most {MAX_COMMANDS} commands run at a time")
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
                stderr=asyncio.subprocess.DEVNULL,  # what it says may hold its secrets
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a command"
            raise McpCommandError(f"{command.argv[0]} cannot be started: {reason}") from error
        log.info("Started %s, pid %s", command.argv[0], process.pid)
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE_SECONDS):
                    await process.wait()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it, or whatever it left behind
            await process.wait()
            log.info("Ended %s, pid %s", command.argv[0], process.pid)


async def answers(port: int) -> bool:
    """Whether who listens on this machine's `port` still says no to what is no request. For probes: it runs nothing."""
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
    """Until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = CommandRunner()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(mcp_commands.answer(reader, writer, token=token, run=runner.run))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, host, port, limit=mcp_commands.REQUEST_BYTES)
    for option, value in LIFE_SIGNS.items():  # connections inherit them
        server.sockets[0].setsockopt(socket.IPPROTO_TCP, option, value)
    server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    log.info("Runs commands for %s:%s", *server.sockets[0].getsockname()[:2])
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
        sys.exit(0 if asyncio.run(answers(arguments.port)) else "It does not answer")
    configure_logging()
    token = arguments.token_file.read_text().strip()
    if len(token) < 32:
        sys.exit("The token must have at least 32 characters")
    asyncio.run(serve(host=arguments.host, port=arguments.port, token=token))


if __name__ == "__main__":
    main()
