"""Files and the screen pass through the gate as bytes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from moorage_sandbox.protocol import MAX_TRANSFER_BYTES, GateError, Scope
from support.gate import FakeBox, Gate


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_a_file_comes_back_as_it_was_sent(gate: Gate) -> None:
    content = os.urandom(3_000_000)
    async with gate.client() as client:
        await client.bind()
        written = await client.write_file("/home/ubuntu/a b%.bin", once(content), size=len(content))
        async with client.read_file("/home/ubuntu/a b%.bin") as file:
            read = b"".join([chunk async for chunk in file.chunks])
    assert (written.size, file.size, read == content) == (len(content), len(content), True)


async def test_a_missing_file_is_not_found(gate: Gate) -> None:
    async with gate.client() as client:
        await client.bind()
        with pytest.raises(GateError) as error:
            async with client.read_file("/nowhere"):
                pass
    assert (error.value.code, error.value.status) == ("not_found", 404)


async def put_by_hand(gate: Gate, token: str, *, declared: int, sent: bytes) -> bytes:
    """Declare a length and send `sent`, then end the stream if it is not empty. Returns the gate's answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gate.url.rpartition(":")[2]))
    head = ["PUT /v1/files?path=x HTTP/1.1", "Host: gate", f"Authorization: {token}", f"Content-Length: {declared}"]
    writer.write("\r\n".join([*head, "", ""]).encode() + sent)
    if sent:
        writer.write_eof()
    answer = b""
    while not answer.endswith(b"}") and (block := await reader.read(65536)):
        answer += block
    writer.close()
    return answer


async def test_a_file_beyond_the_limit_is_refused_before_it_is_sent(gate: Gate, box: FakeBox) -> None:
    async with gate.client() as client:
        await client.bind()
        token = client.headers(Scope.FILE_WRITE)["Authorization"]
    answer = await put_by_hand(gate, token, declared=MAX_TRANSFER_BYTES + 1, sent=b"")
    assert b"413" in answer.splitlines()[0]
    assert (b'"too_large"' in answer, box.files) == (True, {})


async def test_an_upload_that_is_cut_off_leaves_nothing(gate: Gate, box: FakeBox) -> None:
    async with gate.client() as client:
        await client.bind()
        token = client.headers(Scope.FILE_WRITE)["Authorization"]
        await put_by_hand(gate, token, declared=1000, sent=b"half")
        assert (await client.view_shell("main")).output == "hello"
    assert box.files == {}


@pytest.fixture
async def screen(directory: Path) -> AsyncIterator[list[bytes]]:
    """Takes the place of the X server: sends a greeting and echoes what it receives."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"RFB 003.008\n")
        while data := await reader.read(65536):
            heard.append(data)
            if data == b"end":
                break
            writer.write(data)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(directory / "rfb.sock"))
    yield heard
    server.close()


async def test_bytes_reach_the_screen_and_come_back(gate: Gate, screen: list[bytes]) -> None:
    async with gate.client() as client:
        await client.bind()
    async with gate.client(key="api", epoch=0) as client:
        headers = client.headers(Scope.VNC)
        async with connect(
            client.vnc_url(),
            additional_headers=headers,
            subprotocols=[Subprotocol("binary")],
            proxy=None,
        ) as socket:
            assert socket.subprotocol == "binary"
            assert await socket.recv() == b"RFB 003.008\n"
            await socket.send(b"hello")
            assert await socket.recv() == b"hello"
            await socket.send(b"end")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
    assert screen == [b"hello", b"end"]
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011


@pytest.mark.parametrize(("scope", "status"), [(Scope.FILE_READ, 403), (Scope.VNC, 503)])
async def test_a_screen_without_the_scope_or_without_a_server_is_refused(gate: Gate, scope: Scope, status: int) -> None:
    async with gate.client() as client:
        await client.bind()
        with pytest.raises(InvalidStatus) as refused:
            async with connect(client.vnc_url(), additional_headers=client.headers(scope), proxy=None):
                pass
    assert refused.value.response.status_code == status
