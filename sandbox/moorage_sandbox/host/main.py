"""Entry point of the sandbox host: puts its parts together, runs until a signal, ends everything."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from moorage_common.logs import configure_logging
from moorage_sandbox.host import doctor, http_api
from moorage_sandbox.host.confinement import limits
from moorage_sandbox.host.confinement.command_lines import find_python
from moorage_sandbox.host.confinement.limits import ResourceLimits
from moorage_sandbox.host.mcp_servers import McpServers
from moorage_sandbox.host.processes.launcher import Launcher, LaunchError
from moorage_sandbox.host.sandboxes import layout
from moorage_sandbox.host.sandboxes.layout import Layout, LayoutError
from moorage_sandbox.host.sandboxes.parts import SharedResources
from moorage_sandbox.host.sandboxes.registry import Registry
from moorage_sandbox.host.settings import MIB, HostSettings
from moorage_sandbox.host.trust_mirror import TrustMirror

log = logging.getLogger(__name__)


async def run(settings: HostSettings) -> None:
    """Until SIGTERM or SIGINT. Raises LayoutError or LaunchError when it cannot start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as closing:
        places = Layout(settings.data_dir)
        closing.callback(places.close)
        refuse_paths(settings)
        python = find_python()
        layout.furnish(places, python=python.executable)
        parents = limits.find_parents()
        await limits.remove_leftovers(parents, f"moorage-{places.name}-")
        launcher = Launcher()
        closing.push_async_callback(launcher.close)
        await launcher.start()
        surroundings = SharedResources(
            layout=places,
            launcher=launcher,
            python=python,
            parents=parents,
            limits=ResourceLimits.of(settings),
            has_network=settings.network,
            unresponsive_seconds=settings.unresponsive_seconds,
        )
        trust = TrustMirror(settings.trust_file, places.trust_file)
        listener = closing.enter_context(http_api.listening(settings.socket))
        commands_listener = closing.enter_context(http_api.listening(settings.commands_socket))
        registry = Registry(settings, surroundings)
        closing.push_async_callback(registry.close)
        registry.empty_trash()
        commands = McpServers(settings, surroundings, registry)
        closing.push_async_callback(commands.close)
        await commands.start(commands_listener)
        closing.callback(asyncio.create_task(trust.follow()).cancel)
        log.info("Sandbox host listens on %s", settings.socket)
        await http_api.serve(http_api.HostApp(registry, trust), listener, stop=stop)


def refuse_paths(settings: HostSettings) -> None:
    """What commands are shown must hold nothing of the platform's. Raises LayoutError."""
    ours = [settings.data_dir.resolve(), settings.socket.parent.resolve()]
    for path in settings.command_paths:
        real = path.resolve()
        if not real.is_dir():
            raise LayoutError(f"{path} is no directory that MCP servers could be shown")
        if any(own.is_relative_to(real) or real.is_relative_to(own) for own in ours):
            raise LayoutError(f"{path} holds the platform's own data, which MCP servers must not see")


def parse(arguments: list[str] | None = None) -> HostSettings:
    parser = argparse.ArgumentParser(prog="moorage_sandbox.host", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket to listen on, for this user alone")
    parser.add_argument("--data-dir", type=Path, required=True, help="where homes and gates' ledgers are kept")
    parser.add_argument("--trust-file", type=Path, required=True, help="public keys whose tokens the gates believe")
    parser.add_argument("--max-sandboxes", type=int, default=HostSettings.max_sandboxes, help="running at a time")
    parser.add_argument("--memory-mib", type=int, default=HostSettings.memory_bytes // MIB, help="of one sandbox")
    parser.add_argument("--processes", type=int, default=HostSettings.processes, help="and threads, of one sandbox")
    parser.add_argument(
        "--cpus", type=float, default=HostSettings.cpus, help="of one sandbox, where control groups work"
    )
    parser.add_argument("--no-network", action="store_true", help="sandboxes reach nothing at all")
    parser.add_argument(
        "--unresponsive-seconds",
        type=float,
        default=HostSettings.unresponsive_seconds,
        help="after which a sandbox that does not answer is restarted",
    )
    parser.add_argument(
        "--uid-base", type=int, default=HostSettings.uid_base, help="first of the sandboxes' users (root)"
    )
    parser.add_argument("--uid-count", type=int, default=HostSettings.uid_count, help="how many (root)")
    parser.add_argument(
        "--command-path",
        type=Path,
        action="append",
        default=[],
        help="directory that stdio MCP servers are shown, read-only; may be given several times",
    )
    given = parser.parse_args(arguments)
    return HostSettings(
        socket=given.socket.absolute(),
        data_dir=given.data_dir.absolute(),
        trust_file=given.trust_file.absolute(),
        max_sandboxes=given.max_sandboxes,
        memory_bytes=given.memory_mib * MIB,
        processes=given.processes,
        cpus=given.cpus,
        network=not given.no_network,
        unresponsive_seconds=given.unresponsive_seconds,
        command_paths=tuple(path.absolute() for path in given.command_path),
        uid_base=given.uid_base,
        uid_count=given.uid_count,
    )


def main() -> None:
    if sys.argv[1:2] == ["doctor"]:
        sys.exit(doctor.main(sys.argv[2:]))
    configure_logging()
    try:
        asyncio.run(run(parse()))
    except (LayoutError, LaunchError) as error:
        sys.exit(f"The sandbox host cannot start: {error}")
