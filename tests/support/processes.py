"""Processes of the platform: api, runner and sandbox host. Tests start them, kill them and read their logs."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from moorage_api.settings import Settings
from moorage_local.data.ports import free_ports
from moorage_local.data.private_files import make_private_directory
from moorage_local.processes.child import Child
from support.services import Services, run
from support.waiting import HANG_SECONDS
from support.worker import WORKER

UID_BASE = 600_000
UID_COUNT = 10_000
"""The user ids for the sandboxes of one test process. Two hosts must not share them."""


def environment_of(settings: Settings) -> dict[str, str]:
    """This process's environment, with variables that produce `settings`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")}
    for name, value in settings:
        if value is not None:
            environment[f"MOORAGE_{name.upper()}"] = _as_text(value)
    return environment


def _as_text(value: Any) -> str:
    """The form that pydantic-settings reads back: JSON for lists, plain text for the rest."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return json.dumps(value) if isinstance(value, list) else str(value)


@dataclass
class Process:
    """One process of the platform. `url` is the api's."""

    child: Child
    url: str = ""

    @property
    def pid(self) -> int:
        return self.child.pid

    def log(self) -> str:
        return self.child.log.read_text(errors="replace")

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.child.process.kill()
        await self.child.wait()

    async def stop(self) -> int:
        """Send SIGTERM, wait for the end and return the exit status."""
        return await self.child.stop(grace_seconds=HANG_SECONDS)


TOKEN_SECONDS = 24 * 60 * 60
"""A test run on a slow machine takes longer than the half hour for which an access token is valid by default."""


@dataclass
class Platform:
    """Starts processes on one database. `stop()` ends all of them, whether the test passed or not."""

    services: Services
    database_url: str
    directory: Path
    """Its path is short, because Unix sockets are created in it."""

    changes: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from the defaults, for every process."""

    processes: list[Process] = field(default_factory=list)

    @property
    def host_socket(self) -> Path:
        return self.directory / "host.sock"

    def settings(self, *, runner: bool = False) -> Settings:
        changes = {"access_token_seconds": TOKEN_SECONDS, **self.changes}
        return self.services.settings(
            database_url=self.database_url, directory=self.directory, runner=runner, **changes
        )

    async def start_api(self, *, port: int | None = None) -> Process:
        """Start an api and wait until it answers. With `port` it replaces an api that has ended."""
        number = port or free_ports(1)[0]
        process = self._start(
            "api", ["moorage_api.main", "--host", "127.0.0.1", "--port", str(number)], environment_of(self.settings())
        )
        process.url = f"http://127.0.0.1:{number}"
        async with httpx.AsyncClient(base_url=process.url) as client:
            await self._wait_until_answering(process, client, "/healthz")
        return process

    async def start_runner(self) -> Process:
        """Start a runner and do not wait. Tests see its work in the events."""
        return self._start("runner", ["moorage_api.runner.main"], environment_of(self.settings(runner=True)))

    async def start_host(self, *, command_paths: Sequence[Path] = (), trust_file: Path | None = None) -> Process:
        """A sandbox host that answers on `host_socket`; a second start finds the sandboxes' homes of the first.

        `command_paths` are shown to stdio MCP servers.
        """
        process = self._start(
            "host",
            [
                "moorage_sandbox.host",
                "--socket",
                str(self.host_socket),
                "--data-dir",
                str(make_private_directory(self.directory / "host")),
                "--trust-file",
                str(trust_file or self.services.keys.trust_file),
                "--uid-base",
                str(UID_BASE + UID_COUNT * WORKER),
                "--uid-count",
                str(UID_COUNT),
                *(f"--command-path={path}" for path in command_paths),
            ],
            {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")},
        )
        transport = httpx.AsyncHTTPTransport(uds=str(self.host_socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
            await self._wait_until_answering(process, client, "/healthz")
        return process

    async def stop(self) -> None:
        await asyncio.gather(*(process.stop() for process in self.processes))

    def _start(self, name: str, module: list[str], environment: dict[str, str]) -> Process:
        log = self.directory / f"{name}-{len(self.processes)}.log"
        process = Process(Child.start([sys.executable, "-m", *module], log=log, environment=environment))
        self.processes.append(process)
        return process

    async def _wait_until_answering(self, process: Process, client: httpx.AsyncClient, path: str) -> None:
        deadline = time.monotonic() + HANG_SECONDS
        while time.monotonic() < deadline:
            try:
                if (await client.get(path)).is_success:
                    return
            except httpx.TransportError:
                if not process.child.is_running:
                    break
            await asyncio.sleep(0.05)
        raise AssertionError(f"{process.child.log.stem} does not answer. Its log:\n{process.child.log_tail()}")

    def logs(self) -> str:
        """The output of all processes, for the report of a failed test."""
        return "\n".join(f"--- {process.child.log.name}\n{process.child.log_tail()}" for process in self.processes)


@contextmanager
def shared_platform(services: Services, **changes: Any) -> Iterator[Platform]:
    """A platform for fixtures that many tests share, with its own database and directory. It starts no process."""
    directory = Path(tempfile.mkdtemp(prefix="mo-"))
    platform = Platform(services, run(services.create_database()), directory, changes=changes)
    try:
        yield platform
    finally:
        run(platform.stop())
        shutil.rmtree(directory, ignore_errors=True)
