"""Bytes that only keep a connection open do not make us wait longer for an answer than the time limits say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from moorage_api.agent.model.incoming.answers import Answer
from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.model.servers.errors import LlmError
from moorage_api.outbound import Outbound

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
CONTENT = b'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}\n\n'
END = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
KEEP_ALIVES = {
    "a comment": b": ping\n\n",
    "an empty line": b"\n",
    "a named event": b"event: ping\ndata: {}\n\n",
    "no choices": b'data: {"choices": []}\n\n',
    "an empty delta": b'data: {"choices": [{"index": 0, "delta": {}}]}\n\n',
    "an empty text": b'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n\n',
    "empty arguments": b'data: {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", '
    b'"type": "function", "function": {"arguments": ""}}]}}]}\n\n',
}


@asynccontextmanager
async def serve(*parts: bytes, then: bytes = b"") -> AsyncIterator[str]:
    """A server that sends the parts, and then `then` again and again; without it the response ends."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for part in (HEAD, *parts):
                writer.write(part)
                await writer.drain()
            while then:
                writer.write(then)
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            return  # the client has given up, as it should
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def ask(url: str, *, first_byte_seconds: float, idle_seconds: float) -> Answer:
    limits = {"first_byte_seconds": first_byte_seconds, "idle_seconds": idle_seconds}
    async with LlmClient(url, "", "scripted", outbound=Outbound(), **limits) as client:  # type: ignore[arg-type]
        return await client.ask([{"role": "user", "content": "Hello?"}], max_retries=0)


@pytest.mark.parametrize("keep_alive", KEEP_ALIVES.values(), ids=KEEP_ALIVES.keys())
async def test_an_answer_that_does_not_begin_is_not_waited_for(keep_alive: bytes) -> None:
    async with serve(then=keep_alive) as url:
        with pytest.raises(LlmError, match="did not answer in time"):
            await ask(url, first_byte_seconds=0.3, idle_seconds=3_600)


@pytest.mark.parametrize("keep_alive", KEEP_ALIVES.values(), ids=KEEP_ALIVES.keys())
async def test_an_answer_that_does_not_go_on_is_not_waited_for(keep_alive: bytes) -> None:
    async with serve(CONTENT, then=keep_alive) as url:
        with pytest.raises(LlmError, match="did not answer in time"):
            await ask(url, first_byte_seconds=3_600, idle_seconds=0.3)


async def test_an_answer_with_keep_alives_in_it_is_read() -> None:
    async with serve(*KEEP_ALIVES.values(), CONTENT, KEEP_ALIVES["a comment"], END) as url:
        answer = await ask(url, first_byte_seconds=60, idle_seconds=60)
    assert answer.text == "Hello"
