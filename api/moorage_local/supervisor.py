"""Start all processes in order, restart those that die, and stop all of them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pydantic import SecretStr, ValidationError

from moorage_api.settings import Settings
from moorage_common.backoff import Backoff
from moorage_common.keeper import keep_running
from moorage_local.data.credentials import API_KEY_ID, RUNNER_KEY_ID, Credentials, SigningKeys
from moorage_local.data.directory import DataDirectory
from moorage_local.data.log_files import limit_logs
from moorage_local.data.private_files import make_private_directory
from moorage_local.doctor import raise_if_unusable
from moorage_local.errors import StartError
from moorage_local.http import is_answering
from moorage_local.listener import local_address
from moorage_local.options import Options, invalid_environment
from moorage_local.prepare import PreparedServices, prepare_services, runner_is_alive
from moorage_local.processes.child import Child, base_environment
from moorage_local.processes.platform_process import PlatformProcess
from moorage_local.servers.embedded_services import EmbeddedServices

READY_ANSWER_SECONDS = 30
BACKOFF = Backoff(0.2, 30.0)
STEADY_SECONDS = 60
"""After running this long, a process that dies is restarted with the shortest delay again."""

PrintLine = Callable[[str], None]


class Member(Protocol):
    """A process that the supervisor keeps running: an embedded server or one of our own parts."""

    @property
    def title(self) -> str: ...
    @property
    def log(self) -> Path: ...
    @property
    def child(self) -> Child | None: ...

    async def start(self) -> None: ...
    async def restart(self) -> None: ...
    async def stop(self) -> None: ...
    def kill(self) -> None: ...


class Supervisor:
    """Call `start()`, then `watch()` until it is cancelled, then `stop()` or `kill()`, also after a failed start."""

    def __init__(
        self, options: Options, directory: DataDirectory, listener: socket.socket, print_line: PrintLine
    ) -> None:
        self._options = options
        self._directory = directory
        self._listener = listener
        self._tell = print_line
        self._credentials = Credentials.load(directory.secrets)
        self._keys = SigningKeys.load(directory.keys)
        self._services = EmbeddedServices.build(options, directory, self._credentials)
        self._parts: list[PlatformProcess] = []
        self.admin_password = options.admin_password or SecretStr(self._credentials.admin_password)

    async def start(self) -> PreparedServices:
        """Start everything and return when all of it answers. Raises StartError."""
        async with asyncio.TaskGroup() as group:
            for server in self._services.servers:
                group.create_task(self._start(server))
            group.create_task(self._start_host())
        settings = self._settings(API_KEY_ID, self._keys.api)
        began = time.monotonic()
        prepared = await prepare_services(
            settings, admin_username=self._options.admin_username, admin_password=self.admin_password
        )
        self._tell(f"  {'Schema, bucket and admin':<26} ready  {time.monotonic() - began:4.1f} s")
        platform = [self._api(settings), self._runner()]
        self._parts += platform
        async with asyncio.TaskGroup() as group:
            for part in platform:
                group.create_task(self._start(part))
        return prepared

    async def watch(self) -> None:
        """Restart processes that end by themselves, with a growing delay. Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(limit_logs(self._directory.logs))
            for member in self._members():
                group.create_task(keep_member_running(member, self._tell))

    async def stop(self) -> None:
        """Stop our own processes first, then the servers that they use."""
        await asyncio.gather(*(part.stop() for part in self._parts))
        await asyncio.gather(*(server.stop() for server in self._services.servers))

    async def kill(self) -> None:
        for member in self._members():
            member.kill()
        await asyncio.gather(*(member.child.stop(grace_seconds=2) for member in self._members() if member.child))

    def _members(self) -> list[Member]:
        return [*self._services.servers, *self._parts]

    async def _start(self, member: Member) -> None:
        began = time.monotonic()
        await member.start()
        self._tell(f"  {member.title:<26} ready  {time.monotonic() - began:4.1f} s")

    async def _start_host(self) -> None:
        """Start the sandbox host. The checks run first, because their errors are clearer than those of the host."""
        await raise_if_unusable(self._options)
        host = self._host()
        self._parts.append(host)
        await self._start(host)

    def _settings(self, key_id: str, key_file: Path) -> Settings:
        """Build the settings of api or runner: from the environment, replaced by the values that only we know."""
        known: dict[str, Any] = {
            "jwt_secret": self._options.jwt_secret or self._credentials.jwt_secret,
            **self._services.addresses(),
            "signing_key_file": key_file,
            "signing_key_id": key_id,
            "sandbox_host_socket": self._directory.host_socket,
        }
        if not {"SKILLS_ROOT_DIR", "MOORAGE_SKILLS_ROOT_DIR"} & os.environ.keys():
            known["skills_root_dir"] = self._directory.root / "skills"
        try:
            return Settings(**known)
        except ValidationError as error:
            raise invalid_environment(error) from None

    def _environment(self, settings: Settings) -> dict[str, str]:
        """Our environment with all settings as variables, in their validated form. The admin's password is left out."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_ADMIN_")}
        for name in settings.model_fields_set:
            value = getattr(settings, name)
            if isinstance(value, SecretStr):
                environment[f"MOORAGE_{name.upper()}"] = value.get_secret_value()
            elif isinstance(value, str | int | float | Path):
                environment[f"MOORAGE_{name.upper()}"] = str(value)
            elif isinstance(value, list):
                environment[f"MOORAGE_{name.upper()}"] = json.dumps(value)
        return environment

    def _api(self, settings: Settings) -> PlatformProcess:
        address = local_address(self._listener)
        return PlatformProcess(
            "API",
            ["moorage_api.main", "--fd", str(self._listener.fileno())],
            self._environment(settings),
            self._directory.logs / "api.log",
            lambda: is_answering(address, "/readyz", timeout_seconds=READY_ANSWER_SECONDS),
            pass_fds=[self._listener.fileno()],
        )

    def _runner(self) -> PlatformProcess:
        settings = self._settings(RUNNER_KEY_ID, self._keys.runner)
        return PlatformProcess(
            "Runner",
            ["moorage_api.runner.main"],
            self._environment(settings),
            self._directory.logs / "runner.log",
            lambda: runner_is_alive(settings.database_url.get_secret_value()),
        )

    def _host(self) -> PlatformProcess:
        """The sandbox host gets no secrets in its environment, because it starts the agents' commands."""
        listening = self._directory.host_socket
        make_private_directory(listening.parent)
        return PlatformProcess(
            "Sandbox host",
            [
                "moorage_sandbox.host",
                f"--socket={listening}",
                f"--data-dir={make_private_directory(self._directory.root / 'host')}",
                f"--trust-file={self._keys.trust_file}",
                *(f"--command-path={path}" for path in self._options.mcp_paths.split(":") if path),
            ],
            base_environment(),
            self._directory.logs / "sandbox-host.log",
            lambda: is_answering(listening, "/healthz", timeout_seconds=READY_ANSWER_SECONDS),
        )


async def keep_member_running(member: Member, print_line: PrintLine, *, backoff: Backoff = BACKOFF) -> None:
    """Wait until a member that was started ends, and restart it until that succeeds. Runs until cancelled.

    A restart that fails can leave the process running, or no process at all. So only a restart that succeeded is
    followed by a wait for the end of the process.
    """
    is_started = True

    async def run() -> str:
        nonlocal is_started
        if not is_started:
            try:
                await member.restart()
            except (StartError, OSError) as error:
                return str(error)
            is_started = True
            print_line(f"{member.title} runs again")
        assert member.child is not None
        status = await member.child.wait()
        is_started = False
        return f"{member.title} ended ({describe_exit(status)}) and will be restarted. Its log: {member.log}"

    def on_end(message: str, _failures: int) -> bool:
        print_line(message)
        return True

    await keep_running(run, on_end=on_end, backoff=backoff, steady_seconds=STEADY_SECONDS)


def describe_exit(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
