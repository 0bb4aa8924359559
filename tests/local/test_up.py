"""`moorage up`. One running platform is shared by tests that only read, or whose damage it repairs."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest

from moorage_local.data.credentials import Credentials
from moorage_local.data.ports import PortBook, free_ports
from moorage_local.servers.s3 import S3
from moorage_local.up import is_nearby
from support import accounts
from support.machine import Machine, moorage
from support.services import Services, run
from support.sockets import answers_after, has_no_delay
from support.waiting import HANG_SECONDS

ADMIN = {"MOORAGE_ADMIN_USERNAME": "harbourmaster", "MOORAGE_ADMIN_PASSWORD": "a password of the environment"}
LLM_KEY = "sk-of-the-environment"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    changes = {
        **ADMIN,
        "MOORAGE_PORT": str(free_ports(1)[0]),
        "MOORAGE_LLM_BASE_URL": "http://127.0.0.1:9/v1",
        "MOORAGE_LLM_API_KEY": LLM_KEY,
        "MOORAGE_LLM_MODEL": "a-model",
    }
    started = Machine(tmp_path_factory.mktemp("machine") / "data", changes)
    try:
        run(started.start())
        yield started
    finally:
        run(started.discard())


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Machine]:
    """A separate platform for one test, not started yet."""
    created = Machine(tmp_path / "data", {"MOORAGE_PORT": str(free_ports(1)[0])})
    yield created
    await created.discard()


async def login(url: str, username: str, password: str) -> int:
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
        response = await client.post("/api/auth/login", json={"username": username, "password": password})
        return response.status_code


def shown_password(output: str) -> str:
    (line,) = [line for line in output.splitlines() if line.startswith("  Admin")]
    return line.split("password ")[1].split()[0]


def object_store(data: Path) -> S3:
    """Find the S3 server's address and keys in the data directory."""
    credentials = Credentials.load(data / "secrets.json")
    ports = PortBook(data / "ports.json")
    found = S3(
        data / "s3",
        ports=ports,
        log=data / "logs" / "s3.log",
        access_key=credentials.s3_access_key,
        secret_key=credentials.s3_secret_key,
    )
    found.ports = ports.last_ports("s3")
    return found


async def make_sandbox(data: Path) -> None:
    transport = httpx.AsyncHTTPTransport(uds=str(data / "host.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://host", timeout=HANG_SECONDS) as client:
        (await client.put(f"/v1/sandboxes/{uuid4()}")).raise_for_status()


async def test_the_environment_sets_port_admin_and_model(machine: Machine) -> None:
    assert machine.url.endswith(f":{machine.changes['MOORAGE_PORT']}")
    assert await login(machine.url, *ADMIN.values()) == 200
    assert "a-model at http://127.0.0.1:9/v1" in machine.output()


async def test_a_second_platform_in_the_same_directory_is_refused(machine: Machine) -> None:
    second = moorage("up", data=machine.data)
    assert second.returncode == 1
    assert f"already running on {machine.data} (process {machine.up.pid})" in second.stdout


async def test_arguments_and_output_contain_no_secret(machine: Machine) -> None:
    secrets = [*json.loads((machine.data / "secrets.json").read_text()).values(), LLM_KEY]
    secrets.append(ADMIN["MOORAGE_ADMIN_PASSWORD"])
    arguments = {str(process.pid): " ".join(process.cmdline()) for process in machine.processes()}
    printed = {path.name: path.read_text(errors="replace") for path in (machine.data / "logs").iterdir()}
    places = {**arguments, **printed, "output": machine.output()}
    assert len(arguments) >= 6
    assert [place for place, content in places.items() for secret in secrets if secret in content] == []


async def test_the_sandbox_host_gets_no_secret_in_its_environment(machine: Machine) -> None:
    host = machine.part("moorage_sandbox.host")
    below = [host, *host.children(recursive=True)]
    known = {name for process in below for name in process.environ() if name.startswith("MOORAGE_")}
    assert {name for name in known if not name.startswith("MOORAGE_GATE_")} == set()


async def test_only_the_owner_can_read_the_data(machine: Machine) -> None:
    places = [machine.data, *machine.data.iterdir(), *(machine.data / "keys").iterdir()]
    assert [path for path in places if stat.S_IMODE(path.lstat().st_mode) & 0o077] == []


async def test_everything_listens_on_loopback_only(machine: Machine) -> None:
    heard = {
        connection.laddr.ip
        for process in machine.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert heard == {"127.0.0.1"}


async def test_an_accepted_connection_sends_each_part_of_an_answer_at_once(machine: Machine) -> None:
    async with httpx.AsyncClient(base_url=machine.url) as client:
        answer = await client.get("/healthz")
        client_port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
        assert has_no_delay(machine.part("moorage_api.main").pid, client_port=client_port)


async def test_a_connection_is_kept_while_its_client_may_still_use_it(machine: Machine) -> None:
    """Our clients drop an unused connection after 5 s, and nginx after 60 s. A server that is first loses requests."""
    api, host = await asyncio.gather(
        answers_after(6, "/healthz", port=int(machine.url.rsplit(":", 1)[1])),
        answers_after(6, "/healthz", socket_path=machine.data / "host.sock"),
    )
    assert (api, host) == ([b"HTTP/1.1 200 OK"] * 2, [b"HTTP/1.1 200 OK"] * 2)


async def test_a_configured_url_cannot_lead_to_a_server_of_the_platform(machine: Machine) -> None:
    """There are many ports to protect: the S3 server alone listens on ten."""
    servers = ("bin/postgres", "valkey-server", "weed")
    ports = {
        connection.laddr.port
        for words in servers
        for connection in machine.part(words).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(ports) >= len(servers)
    async with await accounts.login(
        machine.url, ADMIN["MOORAGE_ADMIN_USERNAME"], ADMIN["MOORAGE_ADMIN_PASSWORD"]
    ) as admin:
        for port in ports:
            there = {"there": {"transport": "streamable_http", "url": f"http://127.0.0.1:{port}/"}}
            answer = await admin.client.post("/api/app-config/mcp-servers", json={"mcpServers": there})
            assert "internal service of this platform" in answer.json()["msg"], port


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ("moorage_api.main", "API"),
        ("moorage_api.runner", "Runner"),
        ("moorage_sandbox.host", "Sandbox host"),
        ("bin/postgres", "PostgreSQL"),
        ("valkey-server", "Valkey"),
        ("weed", "S3 server"),
    ],
)
async def test_a_process_that_dies_is_restarted(machine: Machine, words: str, title: str) -> None:
    machine.part(words).kill()
    await machine.wait_for_output(f"{title} runs again")
    async with asyncio.timeout(HANG_SECONDS):  # each broken connection gives one 503
        while (status := await login(machine.url, *ADMIN.values())) == 503:
            await asyncio.sleep(0.1)
    assert status == 200


async def test_kill_9_leaves_no_process_and_no_damage(other: Machine) -> None:
    await other.start()
    password = shown_password(other.output())
    assert await login(other.url, "admin", password) == 200
    with object_store(other.data).client() as client:
        client.put_object("moorage", "kept", BytesIO(b"cargo"), 5)
    await make_sandbox(other.data)

    await other.kill()
    assert await other.remaining_processes() == []

    await other.start()
    assert password not in other.output()
    assert await login(other.url, "admin", password) == 200
    with object_store(other.data).client() as client, client.get_object("moorage", "kept") as response:
        assert response.read() == b"cargo"

    assert await other.end(signal.SIGTERM) == 0
    assert await other.remaining_processes() == []


@pytest.mark.parametrize("expected", ["Starting Moorage", "Valkey", "Schema"])
async def test_a_kill_during_the_start_leaves_no_process(other: Machine, expected: str) -> None:
    other.launch()
    await other.wait_for_output(expected)
    await other.kill()
    assert await other.remaining_processes() == []


async def test_ctrl_c_during_the_start_ends_it(other: Machine) -> None:
    other.launch()
    await other.wait_for_output("Valkey")
    assert await other.end(signal.SIGINT) == 0
    assert await other.remaining_processes() == []


async def test_a_second_stop_request_stops_it_immediately(other: Machine) -> None:
    other.launch()
    await other.wait_for_output("S3 server")
    other.processes()
    other.up.send(signal.SIGINT)
    await other.wait_for_output("Stopping")
    assert await other.end(signal.SIGINT) == 130
    assert await other.remaining_processes() == []


async def test_services_with_a_configured_address_are_used_and_not_started(other: Machine, services: Services) -> None:
    url = await services.create_database()
    await services.empty_redis()  # it counts the requests of other tests for the limits
    other.changes |= services.up_environment(url.replace("+asyncpg", ""))
    await other.start()
    assert await login(other.url, "admin", shown_password(other.output())) == 200
    assert {path.name for path in other.data.iterdir()} & {"postgres", "valkey", "s3"} == set()
    await other.end()
    await services.drop_database(url)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"MOORAGE_DATABASE_URL": "postgresql://me:hidden@127.0.0.1:1/x"}, "PostgreSQL at 127.0.0.1:1/x: "),
        ({"MOORAGE_REDIS_URL": "redis://:hidden@127.0.0.1:1/0"}, "Redis at 127.0.0.1:1: "),
        (
            {"MOORAGE_S3_ENDPOINT": "127.0.0.1:1", "MOORAGE_S3_ACCESS_KEY": "a", "MOORAGE_S3_SECRET_KEY": "hidden"},
            "S3 at 127.0.0.1:1, bucket moorage: ",
        ),
        ({"MOORAGE_S3_ENDPOINT": "127.0.0.1:1"}, "needs MOORAGE_S3_ACCESS_KEY"),
        ({"MOORAGE_PORT": "hidden"}, "MOORAGE_PORT: "),
        ({"MOORAGE_ADMIN_PASSWORD": "hid"}, "the password of the admin must have at least 6 characters"),
        ({"MOORAGE_JWT_SECRET": "hidden"}, "MOORAGE_JWT_SECRET: "),
    ],
    ids=["database", "redis", "s3", "s3 keys", "port", "password", "jwt secret"],
)
async def test_an_unusable_setting_is_named_without_its_secret(
    other: Machine, changes: dict[str, str], expected: str
) -> None:
    other.changes |= changes
    other.launch()
    async with asyncio.timeout(HANG_SECONDS):
        assert await other.up.wait() == 1
    assert expected in other.output()
    assert "hid" not in other.output()
    assert await other.remaining_processes() == []


async def test_a_configured_port_in_use_is_named(other: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        refused = moorage("up", data=other.data, MOORAGE_PORT=str(number))
    assert refused.returncode == 1
    assert f"Port {number} on 127.0.0.1 is in use" in refused.stdout


@pytest.mark.parametrize(
    ("base_url", "nearby"),
    [
        ("http://localhost:11434/v1", True),
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://192.168.1.7:8000/v1", True),
        ("http://ollama:11434/v1", True),
        ("http://gpu.internal/v1", True),
        ("https://api.deepseek.com", False),
        ("https://8.8.8.8/v1", False),
        ("http://localhost.:8000/v1", True),
        ("no address", True),
        ("http://[::1/v1", False),
    ],
)
def test_only_a_model_outside_private_networks_is_expected_to_need_a_key(base_url: str, nearby: bool) -> None:
    assert is_nearby(base_url) is nearby
