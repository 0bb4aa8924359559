"""PostgreSQL, Valkey and S3 on one machine: which of them we start, and the addresses of all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from moorage_local.data.credentials import Credentials
from moorage_local.data.directory import DataDirectory
from moorage_local.data.ports import PortBook
from moorage_local.options import Options
from moorage_local.servers.postgres import Postgres
from moorage_local.servers.s3 import REGION, S3
from moorage_local.servers.server import EmbeddedServer
from moorage_local.servers.valkey import Valkey


@dataclass
class EmbeddedServices:
    """The servers that we start. A server is None if `options` name an address to use instead."""

    options: Options
    postgres: Postgres | None = None
    valkey: Valkey | None = None
    s3: S3 | None = None
    servers: list[EmbeddedServer] = field(default_factory=list)

    @classmethod
    def build(cls, options: Options, directory: DataDirectory, credentials: Credentials) -> EmbeddedServices:
        services = cls(options)
        ports = PortBook(directory.ports)
        if options.database_url is None:
            services.postgres = Postgres(
                directory.root / "postgres",
                ports=ports,
                log=directory.logs / "postgres.log",
                password=credentials.database_password,
                superuser_password=credentials.database_superuser_password,
            )
        if options.redis_url is None:
            services.valkey = Valkey(
                directory.root / "valkey",
                ports=ports,
                log=directory.logs / "valkey.log",
                password=credentials.redis_password,
            )
        if options.s3_endpoint is None:
            services.s3 = S3(
                directory.root / "s3",
                ports=ports,
                log=directory.logs / "s3.log",
                access_key=credentials.s3_access_key,
                secret_key=credentials.s3_secret_key,
            )
        services.servers = [server for server in (services.postgres, services.valkey, services.s3) if server]
        return services

    def addresses(self) -> dict[str, Any]:
        """Addresses as settings of the api, by name. Call it after the servers were started and have their ports."""
        ports = sorted(port for server in self.servers for port in server.ports.values())
        values: dict[str, Any] = {"outbound_closed_ports": ports}
        if self.postgres is not None:
            values["database_url"] = self.postgres.url()
        elif self.options.database_url is not None:
            values["database_url"] = self.options.database_url.get_secret_value()
        if self.valkey is not None:
            values["redis_url"] = self.valkey.url
        if self.s3 is not None:
            values |= {
                "s3_endpoint": self.s3.endpoint,
                "s3_access_key": self.s3.access_key,
                "s3_secret_key": self.s3.secret_key,
                "s3_region": REGION,
                "s3_secure": False,
            }
        return values
