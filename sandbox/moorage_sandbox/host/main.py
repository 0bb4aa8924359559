"""Entry point of the sandbox host: starts its parts, runs until a signal, and ends everything."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from moorage_common import MIB
from moorage_common.logging_setup import configure_logging
from moorage_sandbox.host import doctor, http_api
from moorage_sandbox.host.confinement import limits
from moorage_sandbox.host.confinement.command_lines import find_python
from moorage_sandbox.host.confinement.limits import ResourceLimits
from moorage_sandbox.host.processes.launcher import Launcher, LaunchError
from moorage_sandbox.host.sandboxes import layout
from moorage_sandbox.host.sandboxes.layout import Layout, LayoutError
from moorage_sandbox.host.sandboxes.parts import SharedResources
from moorage_sandbox.host.sandboxes.registry import Registry
from moorage_sandbox.host.settings import HostSettings
from moorage_sandbox.host.stdio_servers import StdioServers
from moorage_sandbox.host.trust_mirror import TrustMirror

logger = logging.getLogger(__name__)


async def run(settings: HostSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises LayoutError or LaunchError when the host cannot start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as closing:
        places = Layout(settings.data_dir)
        closing.callback(places.close)
        check_command_paths(settings)
        python = find_python(mounted_in=places.environment)
        layout.install_sandbox_code(places, python=python.executable)
        parents = limits.find_parents()
        await limits.remove_leftovers(parents, f"moorage-{places.name}-")
        launcher = Launcher(mounted_in=places.environment)
        closing.push_async_callback(launcher.close)
        await launcher.start()
        shared = SharedResources(
            layout=places,
            launcher=launcher,
            python=python,
            parents=parents,
            limits=ResourceLimits(memory_bytes=settings.memory_bytes, processes=settings.processes, cpus=settings.cpus),
            has_network=settings.network,
            unresponsive_seconds=settings.unresponsive_seconds,
        )
        trust = TrustMirror(settings.trust_file, places.trust_file)
        listener = closing.enter_context(http_api.listen_on(settings.socket))
        commands_listener = closing.enter_context(http_api.listen_on(settings.commands_socket))
        registry = Registry(
            shared,
            max_sandboxes=settings.max_sandboxes,
            uid_base=settings.uid_base,
            uid_count=settings.uid_count,
        )
        closing.push_async_callback(registry.close)
        registry.empty_trash()
        commands = StdioServers(settings, shared, registry)
        closing.push_async_callback(commands.close)
        await commands.start(commands_listener)
        closing.callback(asyncio.create_task(trust.follow()).cancel)
        logger.info("Sandbox host listens on %s", settings.socket)
        await http_api.serve(http_api.HostApp(registry, trust), listener, stop=stop)


def check_command_paths(settings: HostSettings) -> None:
    """Raise LayoutError if a directory for commands is missing or contains data of the platform."""
    ours = [settings.data_dir.resolve(), settings.socket.parent.resolve()]
    for path in settings.command_paths:
        real = path.resolve()
        if not real.is_dir():
            raise LayoutError(f"{path} is not a directory. Give --command-path an existing directory")
        if any(own.is_relative_to(real) or real.is_relative_to(own) for own in ours):
            raise LayoutError(
                f"{path} contains the platform's own data, which MCP servers must not see. Give another directory"
            )


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="moorage sandbox-host", description=__doc__)

    def add(flag: str, kind: type, default: object, text: str) -> None:
        parser.add_argument(flag, type=kind, default=default, required=default is None, help=text)

    add("--socket", Path, None, "The Unix socket to listen on. Only the starting user can connect.")
    add("--data-dir", Path, None, "The directory for the homes of sandboxes and the ledgers of gates.")
    add("--trust-file", Path, None, "A JSON file with the public keys whose tokens the gates accept, and their scopes.")
    add("--max-sandboxes", int, HostSettings.max_sandboxes, "How many sandboxes run at the same time.")
    add("--memory-mib", int, HostSettings.memory_bytes // MIB, "The memory limit of one sandbox, in MiB.")
    add("--processes", int, HostSettings.processes, "How many processes and threads one sandbox may have.")
    add("--cpus", float, HostSettings.cpus, "The CPU limit of one sandbox, where control groups are available.")
    parser.add_argument("--no-network", action="store_true", help="Sandboxes get no network at all.")
    add(
        "--unresponsive-seconds",
        float,
        HostSettings.unresponsive_seconds,
        "A part that gives no answer for so long is restarted.",
    )
    add("--uid-base", int, HostSettings.uid_base, "The first kernel user id of sandboxes, where the host runs as root.")
    add("--uid-count", int, HostSettings.uid_count, "How many kernel user ids the host may use for sandboxes.")
    parser.add_argument(
        "--command-path",
        type=Path,
        action="append",
        default=[],
        help="A directory with programs that MCP servers can read. It may be given several times.",
    )
    return parser


def parse(arguments: list[str] | None = None) -> HostSettings:
    given = argument_parser().parse_args(arguments)
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
        logger.error("The sandbox host cannot start: %s", error)
        sys.exit(1)
