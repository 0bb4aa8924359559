"""Real PostgreSQL, Valkey and S3 for the tests. Each test process starts one set and stops it at its end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from redis.asyncio import Redis

from moorage_api import migrations
from moorage_api.settings import Settings
from moorage_local.data.credentials import API_KEY_ID, RUNNER_KEY_ID, Credentials, SigningKeys
from moorage_local.data.ports import PortBook, free_ports
from moorage_local.servers.postgres import DATABASE, ROLE, Postgres
from moorage_local.servers.s3 import REGION, S3
from moorage_local.servers.valkey import Valkey

T = TypeVar("T")

BUCKET = "moorage-tests"

NO_LIMITS = {"limit_reads": 10**6, "limit_writes": 10**6, "limit_chats": 10**6, "limit_streams": 10**4}
"""All tests send requests from one address. The tests of the limits use other settings."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` from a synchronous fixture, leaving the current event loop as it is."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work)


@dataclass(frozen=True)
class Services:
    """The running servers. `postgres`, `valkey` and `s3` can be stopped and restarted by a test that undoes it.

    The database `moorage` is the template of the others and has no connections.
    """

    directory: Path
    postgres: Postgres
    valkey: Valkey
    s3: S3
    keys: SigningKeys
    credentials: Credentials

    async def create_database(self, *, template: str = DATABASE) -> str:
        """Create a database with the schema and no rows, and return its URL. `template0` has no schema either."""
        name = f"test_{uuid4().hex}"
        connection = await self.postgres.connect_as_superuser()
        try:
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {ROLE}")
        finally:
            await connection.close()
        return self.postgres.url(name)

    async def drop_database(self, url: str) -> None:
        """Drop it even with open connections, because a killed process may have left some."""
        connection = await self.postgres.connect_as_superuser()
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")
        finally:
            await connection.close()

    async def empty_database(self, url: str) -> None:
        """Delete all rows and close all connections. This takes milliseconds; a new database takes 0.3 s.

        Rows are deleted and tables not truncated, because that would make a file for each of them.
        """
        name = url.rpartition("/")[2]
        connection = await self.postgres.connect_as_superuser(name)
        try:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
                name,
            )
            tables = await connection.fetch(
                "SELECT format('%I', tablename) FROM pg_tables WHERE schemaname = 'public' AND tablename <> $1",
                "alembic_version",
            )
            await connection.execute(
                "SET session_replication_role = replica"
            )  # ignore foreign keys, so that the order does not matter
            for (table,) in tables:
                await connection.execute(f"DELETE FROM {table}")
        finally:
            await connection.close()

    async def empty_redis(self) -> str:
        """Delete everything in Redis and return its URL."""
        client = Redis.from_url(self.valkey.url)
        try:
            await client.flushall()
        finally:
            await client.aclose()
        return self.valkey.url

    def settings(self, *, database_url: str, directory: Path, runner: bool = False, **changes: Any) -> Settings:
        """Settings as the supervisor would give them. `runner`: with the runner's signing key, not the api's.

        Objects go to one bucket for all tests: their keys begin with random ids, so tests do not meet there.
        """
        values: dict[str, Any] = {
            "database_url": database_url,
            "redis_url": self.valkey.url,
            "s3_endpoint": self.s3.endpoint,
            "s3_access_key": self.s3.access_key,
            "s3_secret_key": self.s3.secret_key,
            "s3_bucket": BUCKET,
            "s3_region": REGION,
            "jwt_secret": self.credentials.jwt_secret,
            "signing_key_file": self.keys.runner if runner else self.keys.api,
            "signing_key_id": RUNNER_KEY_ID if runner else API_KEY_ID,
            "sandbox_host_socket": directory / "host.sock",
            **NO_LIMITS,
        }
        return Settings(**{**values, **changes})

    def up_environment(self, database_url: str) -> dict[str, str]:
        """Variables that make `moorage up` use these servers and a database on them, on a free port."""
        return {
            "MOORAGE_PORT": str(free_ports(1)[0]),
            "MOORAGE_DATABASE_URL": database_url,
            "MOORAGE_REDIS_URL": self.valkey.url,
            "MOORAGE_S3_ENDPOINT": self.s3.endpoint,
            "MOORAGE_S3_ACCESS_KEY": self.s3.access_key,
            "MOORAGE_S3_SECRET_KEY": self.s3.secret_key,
            "MOORAGE_S3_BUCKET": BUCKET,
            "MOORAGE_S3_REGION": REGION,
        }


@contextlib.contextmanager
def running_services() -> Iterator[Services]:
    """Start the three servers on free ports in a directory of their own, with the schema in place."""
    directory = Path(tempfile.mkdtemp(prefix="moorage-tests-"))
    try:
        services = _services(directory)
        try:
            run(_start(services))
            yield services
        finally:
            run(_stop(services))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _services(directory: Path) -> Services:
    credentials = Credentials.load(directory / "secrets.json")
    ports = PortBook(directory / "ports.json")
    postgres = Postgres(
        directory / "postgres",
        ports=ports,
        log=directory / "logs" / "postgres.log",
        password=credentials.database_password,
        superuser_password=credentials.database_superuser_password,
        durable=False,
    )
    valkey = Valkey(
        directory / "valkey",
        ports=ports,
        log=directory / "logs" / "valkey.log",
        password=credentials.redis_password,
    )
    s3 = S3(
        directory / "s3",
        ports=ports,
        log=directory / "logs" / "s3.log",
        access_key=credentials.s3_access_key,
        secret_key=credentials.s3_secret_key,
    )
    return Services(directory, postgres, valkey, s3, SigningKeys.load(directory / "keys"), credentials)


async def _start(services: Services) -> None:
    async with asyncio.TaskGroup() as group:
        for server in (services.postgres, services.valkey, services.s3):
            group.create_task(server.start())
    with services.s3.client() as client:
        client.make_bucket(BUCKET)
    await migrations.upgrade(services.postgres.url())


async def _stop(services: Services) -> None:
    """Stop the servers without saving, because their data is not needed any more."""
    for server in (services.postgres, services.valkey, services.s3):
        await server.stop(at_once=True)
