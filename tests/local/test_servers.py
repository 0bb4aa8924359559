"""The embedded servers: who can use them, and which failures they survive."""

from __future__ import annotations

import asyncio
import json
import pwd
import socket
import ssl
import subprocess
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest
from minio.error import S3Error
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from moorage_local.data.ports import PortBook
from moorage_local.servers.postgres import DATABASE, ROLE, Postgres, unprivileged_prefix
from moorage_local.servers.valkey import Valkey
from support.services import BUCKET, Services
from support.waiting import HANG_SECONDS


@pytest.mark.parametrize("user", [ROLE, "postgres"])
@pytest.mark.parametrize("password", ["", "wrong"])
async def test_postgresql_refuses_a_login_without_the_password(services: Services, user: str, password: str) -> None:
    port = services.postgres.ports["postgres"]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(host="127.0.0.1", port=port, user=user, password=password, database=DATABASE)


async def test_the_platforms_role_is_not_a_superuser(database_url: str) -> None:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("COPY (SELECT 1) TO PROGRAM 'cat'")
    finally:
        await connection.close()


async def test_postgresql_runs_without_root_privileges(services: Services) -> None:
    assert services.postgres.child is not None
    status = Path(f"/proc/{services.postgres.child.pid}/status").read_text()
    (capabilities,) = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff")]
    assert int(capabilities, 16) == 0


async def test_valkey_refuses_a_client_without_the_password(services: Services) -> None:
    client = Redis(host="127.0.0.1", port=services.valkey.ports["valkey"])
    with pytest.raises(AuthenticationError):
        await client.ping()
    await client.aclose()


async def test_the_object_store_creates_no_bucket_by_itself(services: Services) -> None:
    with services.s3.client() as client, pytest.raises(S3Error, match="NoSuchBucket"):
        client.fput_object("unheard-of", "key", __file__)


INNER_PATHS = ["/buckets/", f"/{BUCKET}/key", "/dir/assign", f"/col/delete?collection={BUCKET}", "/vol/status"]


@pytest.mark.parametrize("use", ["s3", "master", "volume", "filer"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_every_http_port_of_the_object_store_refuses_unsigned_requests(
    services: Services, use: str, method: str
) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{services.s3.ports[use]}") as client:
        answers = {path: (await client.request(method, path)).status_code for path in INNER_PATHS}
    assert {path: status for path, status in answers.items() if status not in (400, 401, 403, 404, 405)} == {}


@pytest.mark.parametrize("use", ["s3-grpc", "master-grpc", "volume-grpc", "filer-grpc", "admin-grpc"])
def test_every_grpc_port_of_the_object_store_refuses_clients_without_certificate(services: Services, use: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", services.s3.ports[use]), timeout=HANG_SECONDS) as plain:
        with context.wrap_socket(plain) as encrypted, pytest.raises(ssl.SSLError, match="certificate required"):
            encrypted.recv(1)


async def test_servers_listen_only_on_loopback_and_on_chosen_ports(services: Services) -> None:
    for server in (services.postgres, services.valkey, services.s3):
        assert server.child is not None
        heard = {
            connection.laddr
            for connection in psutil.Process(server.child.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert {address.ip for address in heard} == {"127.0.0.1"}
        assert {address.port for address in heard} <= set(server.ports.values())


async def test_a_port_in_use_is_replaced_and_the_others_are_kept(tmp_path: Path) -> None:
    book = PortBook(tmp_path / "ports.json")
    first = book.take("store", ["a", "b"])
    with socket.create_server(("127.0.0.1", first["a"])):
        second = book.take("store", ["a", "b"])
    assert second["a"] != first["a"]
    assert second["b"] == first["b"]
    assert book.take("store", ["a", "b"]) == second
    assert book.last_ports("store") == second


async def test_a_server_starts_even_if_its_chosen_port_is_taken_meanwhile(tmp_path: Path) -> None:
    class ForgetfulBook(PortBook):
        """Returns a port in use the first time, as if another program had taken it before the server."""

        asked = 0

        def take(self, service: str, uses: object) -> dict[str, int]:
            self.asked += 1
            return {"valkey": taken.getsockname()[1]} if self.asked == 1 else super().take(service, ["valkey"])

    with socket.create_server(("127.0.0.1", 0)) as taken:
        book = ForgetfulBook(tmp_path / "ports.json")
        valkey = Valkey(tmp_path / "valkey", ports=book, log=tmp_path / "logs" / "valkey.log", password="secret")
        await valkey.start()
        assert valkey.ports["valkey"] != taken.getsockname()[1]
        await valkey.stop()


def own_postgres(directory: Path) -> Postgres:
    return Postgres(
        directory / "postgres",
        ports=PortBook(directory / "ports.json"),
        log=directory / "logs" / "postgres.log",
        password="a",
        superuser_password="b",
    )


async def test_postgresql_keeps_committed_data_after_a_kill(tmp_path: Path) -> None:
    """The next start may meet the old server while it ends, or a pid file whose pid another process has now."""
    postgres = own_postgres(tmp_path)
    await postgres.start()
    connection = await postgres.connect_as_superuser(DATABASE)
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    connection.terminate()
    assert postgres.child is not None
    postgres.child.process.kill()

    stranger = await asyncio.create_subprocess_exec("sleep", "600")
    pid_file = tmp_path / "postgres" / "cluster" / "postmaster.pid"
    _, *rest = pid_file.read_text().splitlines()
    await postgres.child.wait()
    pid_file.write_text("\n".join([str(stranger.pid), *rest]) + "\n")

    successor = own_postgres(tmp_path)
    await successor.start()
    connection = await successor.connect_as_superuser(DATABASE)
    assert await connection.fetchval("SELECT answer FROM kept") == 42
    await connection.close()
    await successor.stop()
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


async def test_a_start_waits_for_an_old_server_that_is_still_ending(tmp_path: Path) -> None:
    """This happens after a kill -9 of the supervisor: its server ends by itself a moment later."""
    leaving = own_postgres(tmp_path)
    await leaving.start()
    successor = own_postgres(tmp_path)
    await successor.start()
    assert leaving.child is not None
    assert not leaving.child.is_running
    await successor.stop()


async def test_data_of_another_major_version_is_refused_clearly(tmp_path: Path) -> None:
    cluster = tmp_path / "postgres" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("12\n")
    with pytest.raises(Exception, match="is from PostgreSQL 12"):
        await own_postgres(tmp_path).start()


async def test_an_interrupted_initdb_is_repeated(tmp_path: Path) -> None:
    unfinished = tmp_path / "postgres" / "cluster.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("half a file")
    postgres = own_postgres(tmp_path)
    await postgres.start()
    await postgres.stop()
    assert not unfinished.exists()


async def test_environment_variables_of_other_tools_do_not_reach_a_server(services: Services) -> None:
    for server in (services.postgres, services.valkey, services.s3):
        assert server.child is not None
        names = set(psutil.Process(server.child.pid).environ())
        assert {name for name in names if name.startswith(("PG", "AWS", "S3", "MOORAGE"))} == set()


async def test_the_secrets_of_a_directory_are_stored_and_all_different(services: Services) -> None:
    stored = json.loads((services.directory / "secrets.json").read_text())
    assert stored == services.credentials.model_dump()
    assert len(set(stored.values())) == len(stored)


def test_postgresql_commands_run_as_a_named_user_other_than_root() -> None:
    reply = subprocess.run([*unprivileged_prefix(), "id", "-u"], capture_output=True, text=True, check=True)
    assert int(reply.stdout) != 0
    assert pwd.getpwuid(int(reply.stdout)).pw_name
