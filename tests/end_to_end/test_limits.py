"""Limits during failures, tested over HTTP: Redis is restarted, or a replica with open streams is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from moorage_local.data.ports import PortBook
from moorage_local.servers.valkey import Valkey
from support.accounts import PASSWORD, Person, client_for, data
from support.llm import Plan, ScriptedModel
from support.processes import Platform
from support.sse import Chat, Frame, frames
from support.waiting import until

UseModel = Callable[[str], None]
NewUser = Callable[[str], Awaitable[Person]]

LONG = "This answer takes its time. " * 40
STREAMS, LEASE_SECONDS = 3, 15
"""The leases of a killed replica last for at least two thirds of this time: long enough for what they must refuse."""


@pytest.fixture
async def redis(platform: Platform, tmp_path: Path) -> AsyncIterator[Valkey]:
    """A Redis for this platform only, because the test kills it."""
    valkey = Valkey(
        tmp_path / "valkey",
        ports=PortBook(tmp_path / "ports.json"),
        log=tmp_path / "logs" / "valkey",
        password="secret",
    )
    await valkey.start()
    platform.changes.update(redis_url=SecretStr(valkey.url))
    yield valkey
    await valkey.stop(at_once=True)


async def kill(valkey: Valkey) -> None:
    assert valkey.child is not None
    valkey.child.process.kill()
    await valkey.child.wait()


async def parts(url: str) -> tuple[int, dict[str, str]]:
    """The code of /api/status and the status of each part. /api/status never responds with an HTTP error."""
    async with client_for(url) as client:
        answer = await client.get("/api/status")
    assert answer.status_code == 200
    return answer.json()["code"], {part["service"]: part["status"] for part in answer.json()["data"]}


def limited_requests(session: str) -> list[tuple[str, str, dict[str, Any]]]:
    """One request of each kind: before a login, reads, writes, streams, uploads."""
    return [
        ("POST", "/api/auth/login", {"json": {"username": "nobody", "password": PASSWORD}}),
        ("POST", "/api/auth/register", {"json": {"username": "somebody-new", "password": PASSWORD}}),
        ("GET", "/api/auth/me", {}),
        ("GET", "/api/app-config/llm", {}),
        ("GET", "/api/sessions", {}),
        ("POST", "/api/sessions", {}),
        ("POST", "/api/sessions/stream", {}),
        ("GET", f"/api/sessions/{session}", {}),
        ("POST", f"/api/sessions/{session}/chat", {"json": {"message": "hello"}}),
        ("POST", f"/api/sessions/{session}/stop", {}),
        ("POST", "/api/files", {"files": {"file": ("a.txt", b"a", "text/plain")}}),
        ("GET", "/api/user/tools/mcp", {}),
    ]


async def check_unavailable(person: Person, url: str, method: str, path: str, request: dict[str, Any]) -> None:
    async with client_for(url, person.token) as client:
        answer = await client.request(method, path, **request)
    assert (path, answer.status_code) == (path, 503)
    body = answer.json()
    assert (body["code"], body["data"]) == (503, {"error": "unavailable"})
    assert "Redis" in body["msg"]
    assert "127.0.0.1" not in answer.text


async def screen_close_code(url: str, session: str, token: str) -> int:
    address = f"{url.replace('http', 'ws', 1)}/api/sessions/{session}/vnc?token={token}"
    async with connect(address, proxy=None) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def wait_until_well(*urls: str) -> None:
    async def are_well() -> bool:
        return all([(await parts(url))[0] == 200 for url in urls])

    await until(are_well, "every part of the platform is well")


async def test_without_redis_limited_requests_are_refused_with_503_until_it_is_back(
    platform: Platform, redis: Valkey, use_model: UseModel, new_user: NewUser
) -> None:
    """The stream of an active run goes on to its end, because streams also poll the log every two seconds."""
    with ScriptedModel([Plan("Long", LONG, []), Plan("Short", "Hello!", [])], chunk_delay_seconds=0.04) as model:
        use_model(model.url)
        first, second = await platform.start_api(), await platform.start_api()
        await platform.start_runner()
        alice = await new_user(first.url)
        session = await alice.create_session()
        chat = Chat(session, alice.token, lambda: second.url)
        assert await parts(first.url) == (200, {"postgres": "ok", "redis": "ok", "minio": "ok"})
        killed: list[asyncio.Task[None]] = []

        def on_frame(frame: Frame) -> None:
            if frame.data.get("partial") and not killed:
                killed.append(asyncio.create_task(kill(redis)))

        assert (await chat.say("Take your time", on_frame=on_frame)).event == "done"
        await killed[0]
        assert chat.breaks == 0
        assert chat.all("message", role="assistant")[-1]["message"].strip() == LONG.strip()

        for url in (first.url, second.url):
            code, said = await parts(url)
            assert (code, said) == (503, {"postgres": "ok", "redis": "error", "minio": "ok"})
            requests = limited_requests(session)
            await asyncio.gather(*(check_unavailable(alice, url, *request) for request in requests))
            assert await screen_close_code(url, session, alice.token) == 1011
            async with client_for(url) as client:
                for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
                    assert (await client.get(path)).status_code == 200

        await redis.restart()
        await wait_until_well(first.url, second.url)
        stored = data(await alice.client.get(f"/api/sessions/{session}"))["events"]
        assert [event["data"]["seq"] for event in stored] == list(range(1, len(chat.stored) + 1))
        assert [event["data"]["message"] for event in stored if event["data"].get("role") == "user"] == [
            "Take your time"
        ], "a refused message is not stored"
        assert len(data(await alice.client.get("/api/sessions"))["sessions"]) == 1
        assert (await chat.say("Hello")).event == "done"
        assert (await new_user(second.url)).token


@asynccontextmanager
async def open_list(url: str, token: str) -> AsyncIterator[httpx.Response]:
    """A list stream that has sent its first frame, or the response that refuses it."""
    async with client_for(url, token) as client, client.stream("POST", "/api/sessions/stream") as response:
        coming = frames(response)  # keep a reference: without one the stream would be closed
        if response.status_code == 200:
            assert (await anext(coming)).event == "sessions"
        else:
            await response.aread()
        yield response


def retry_after(response: httpx.Response) -> int:
    """Check that a refusal is what the contract fixes, and return its Retry-After."""
    seconds = response.json()["data"]["retry_after"]
    assert (response.status_code, response.json()["code"]) == (429, 429)
    assert response.headers["retry-after"] == str(seconds)
    assert 1 <= seconds <= LEASE_SECONDS
    return int(seconds)


@pytest.mark.parametrize(
    "platform", [{"limit_streams": STREAMS, "connection_lease_seconds": LEASE_SECONDS}], indirect=True
)
async def test_streams_of_a_killed_replica_count_until_their_leases_end(
    platform: Platform, redis: Valkey, new_user: NewUser
) -> None:
    """The test waits for a renewal before the kill, so renewed leases are the ones that end."""
    dying, living = await platform.start_api(), await platform.start_api()
    alice, bob = await new_user(living.url), await new_user(living.url)
    session = await alice.create_session()
    async with AsyncExitStack() as stack:
        for _ in range(STREAMS):
            assert (await stack.enter_async_context(open_list(dying.url, alice.token))).status_code == 200
        async with open_list(living.url, alice.token) as refused:
            retry_after(refused)
        await wait_until_renewed(redis, alice.id)
        await dying.kill()
        said = await alice.client.post(f"/api/sessions/{session}/chat", json={"message": "hello"})
        retry_after(said)
        assert data(await alice.client.get(f"/api/sessions/{session}"))["events"] == []
        async with open_list(living.url, bob.token) as other:
            assert other.status_code == 200, "each user has their own limit"
        await stack.enter_async_context(room_for_a_list(living.url, alice.token))

    async with AsyncExitStack() as stack:
        for _ in range(STREAMS):
            await stack.enter_async_context(room_for_a_list(living.url, alice.token))
        async with open_list(living.url, alice.token) as refused:
            retry_after(refused)


async def wait_until_renewed(valkey: Valkey, user: str) -> None:
    """Wait until the replica has renewed all leases of the user's streams."""
    key = f"moorage:leases:stream:{user}"
    async with Redis.from_url(valkey.url) as client:

        async def ends() -> list[float]:
            members: Any = await client.zrange(key, 0, -1, withscores=True)
            return [float(score) for _, score in members]

        last_end = max(await ends())

        async def are_renewed() -> bool:
            return min(await ends()) > last_end

        await until(are_renewed, "all leases are renewed")


@asynccontextmanager
async def room_for_a_list(url: str, token: str) -> AsyncIterator[None]:
    """Open a list stream as soon as there is room. Until then, check each refusal."""
    async with AsyncExitStack() as stack:

        async def is_open() -> bool:
            async with AsyncExitStack() as attempt:
                response = await attempt.enter_async_context(open_list(url, token))
                if response.status_code != 200:
                    retry_after(response)
                    return False
                stack.push_async_exit(attempt.pop_all())
                return True

        await until(is_open, "a place for a stream is free")
        yield
