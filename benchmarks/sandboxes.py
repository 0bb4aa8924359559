"""A sandbox of the local host: cold start, exec, files and the screen, through a real gate.

Method: a host process of its own with warm caches; one sandbox at a time. Cold start is measured from the PUT on the
host's socket; "first exec" ends when `shell_execute("true")` has answered, "VNC" when the RFB greeting arrived through
the gate's WebSocket. Files pass through the gate over loopback by a plain socket client that does nothing but send or
count bytes (a Python HTTP client would be measured instead of the gate).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from benchmarks.rows import Row
from moorage_sandbox.client import GateClient, TokenSigner
from moorage_sandbox.protocol import Scope

STARTS = 10
EXECS = 300
FILE_BYTES = 100 * 2**20
TRANSFERS = 5
SHELL = {"session_id": "main", "exec_dir": "/home/ubuntu", "command": "true"}


@dataclass
class Host:
    http: httpx.AsyncClient
    signer: TokenSigner

    async def put(self, session_id: str) -> GateClient:
        answer = (await self.http.put(f"/v1/sandboxes/{session_id}")).json()
        return GateClient(
            answer["url"],
            signer=self.signer,
            sandbox_uid=answer["uid"],
            session_id=session_id,
            epoch=1,
        )


@asynccontextmanager
async def running_host(socket: Path, signer: TokenSigner) -> AsyncIterator[Host]:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://host", timeout=60) as http:
        yield Host(http, signer)


async def measure(socket: Path, signer: TokenSigner) -> list[Row]:
    async with running_host(socket, signer) as host:
        first_exec, first_picture = [], []
        for _ in range(STARTS):
            exec_seconds, vnc_seconds = await cold_start(host)
            first_exec.append(exec_seconds * 1000)
            first_picture.append(vnc_seconds)
        rows = [
            Row("sandbox cold start to first exec", "ms", first_exec, "<= 300"),
            Row("sandbox cold start to VNC", "s", first_picture, "<= 1.5"),
        ]
        session_id = str(uuid4())
        async with await host.put(session_id) as client:
            await client.bind()
            rows += [await exec_round_trip(client), *await files(client)]
        await host.http.delete(f"/v1/sandboxes/{session_id}")
    return rows


async def cold_start(host: Host) -> tuple[float, float]:
    session_id = str(uuid4())
    began = time.perf_counter()
    async with await host.put(session_id) as client:
        await client.bind()
        await client.call("1", "shell_execute", SHELL, timeout_seconds=10)
        first_exec = time.perf_counter() - began
        await greeting(client)
        first_picture = time.perf_counter() - began
    await host.http.delete(f"/v1/sandboxes/{session_id}")
    return first_exec, first_picture


async def greeting(client: GateClient) -> None:
    while True:
        try:
            async with connect(client.vnc_url(), additional_headers=client.headers(Scope.VNC), proxy=None) as socket:
                assert str(await socket.recv(decode=False), "ascii").startswith("RFB")
                return
        except InvalidStatus:
            await asyncio.sleep(0.01)


async def exec_round_trip(client: GateClient) -> Row:
    samples = []
    for number in range(EXECS):
        began = time.perf_counter()
        await client.call(str(100 + number), "shell_execute", SHELL, timeout_seconds=10)
        samples.append((time.perf_counter() - began) * 1000)
    return Row("exec round trip through the gate", "ms", samples, "<= 5 p50", "shell_execute true, one client")


async def files(client: GateClient) -> list[Row]:
    content = bytes(2**20)
    up, down = [], []
    for _ in range(TRANSFERS):
        began = time.perf_counter()
        reader, writer = await request(client, "PUT", Scope.FILE_WRITE, f"Content-Length: {FILE_BYTES}\r\n")
        for _ in range(FILE_BYTES // len(content)):
            writer.write(content)
            await writer.drain()
        assert b" 200 " in await reader.readline()
        up.append(FILE_BYTES / (time.perf_counter() - began) / 1e6)
        writer.close()
        began = time.perf_counter()
        reader, writer = await request(client, "GET", Scope.FILE_READ, "")
        size = 0
        while data := await reader.read(2**20):
            size += len(data)
        assert size > FILE_BYTES
        down.append(FILE_BYTES / (time.perf_counter() - began) / 1e6)
        writer.close()
    return [
        Row("100 MiB into the sandbox, through the gate", "MB/s", up, ">= 300"),
        Row("100 MiB out of the sandbox, through the gate", "MB/s", down, ">= 300"),
    ]


async def request(
    client: GateClient, method: str, scope: Scope, more: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(client.vnc_url())
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=2**22)
    token = client.headers(scope)["Authorization"]
    head = f"{method} /v1/files?path=big.bin HTTP/1.1\r\nHost: gate\r\nConnection: close\r\nAuthorization: {token}\r\n"
    writer.write(f"{head}{more}\r\n".encode())
    return reader, writer
