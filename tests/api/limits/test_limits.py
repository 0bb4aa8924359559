"""Windows and leases of two replicas that share a Redis. Each test uses its own client address."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import uuid4

import httpx
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from moorage_api.errors import LimitedError
from moorage_api.limits.leases import ConnectionKind, Leases
from support.accounts import PASSWORD, Person, data, person
from support.processes import Platform, Process, shared_platform
from support.services import Services, run
from support.waiting import HANG_SECONDS, until

READS, WRITES, STREAMS = 6, 5, 2
LEASE_SECONDS = 10.0
"""A replica renews after a third of it, so a replica on a busy machine may be late by more than six seconds."""
WINDOW_SECONDS = 24 * 3600
"""A window begins with its first request. So long a window does not end within a test, however slow the machine is."""
SETTINGS = {
    "limit_reads": READS,
    "limit_writes": WRITES,
    "limit_chats": 2,
    "limit_streams": STREAMS,
    "limit_screens": 1,
    "limit_window_seconds": WINDOW_SECONDS,
    "connection_lease_seconds": LEASE_SECONDS,
    "trusted_proxies": ["127.0.0.1"],
}
NUMBERS = count(1)


@dataclass(frozen=True)
class Replicas:
    platform: Platform
    first: Process
    second: Process


@pytest.fixture(scope="module")
def replicas(services: Services) -> Iterator[Replicas]:
    with shared_platform(services, **SETTINGS) as platform:
        yield Replicas(platform, run(platform.start_api()), run(platform.start_api()))


def address() -> str:
    number = next(NUMBERS)
    return f"198.51.{number // 250}.{number % 250 + 1}"


def client_at(url: str, forwarded: str, token: str | None = None) -> httpx.AsyncClient:
    headers = {"X-Forwarded-For": forwarded, **({"Authorization": f"Bearer {token}"} if token else {})}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=HANG_SECONDS)


@pytest.fixture
async def alice(replicas: Replicas) -> AsyncIterator[Person]:
    async with client_at(replicas.first.url, address()) as client:
        body = {"username": f"limited-{next(NUMBERS)}-{time.time_ns()}", "password": PASSWORD}
        registered = person(replicas.first.url, data(await client.post("/api/auth/register", json=body)))
    async with registered:
        yield registered


def assert_limited(response: httpx.Response, *, at_most: float = WINDOW_SECONDS) -> None:
    """Check that the response is exactly what the contract fixes."""
    seconds = int(response.headers["Retry-After"])
    assert 1 <= seconds <= at_most
    assert response.status_code == 429
    assert response.json() == {"code": 429, "msg": "请求过多，请稍后重试", "data": {"retry_after": seconds}}


async def test_all_replicas_share_a_window(replicas: Replicas, alice: Person) -> None:
    """A full window is full on every replica. Another bucket and unlimited routes still work."""
    async with client_at(replicas.second.url, address(), alice.token) as elsewhere:
        for number in range(READS):
            client = elsewhere if number % 2 else alice.client
            data(await client.get("/api/auth/me"))
        for client in (alice.client, elsewhere):
            assert_limited(await client.get("/api/auth/me"))
            assert_limited(await client.get("/api/app-config/llm"))
        data(await elsewhere.put("/api/auth/me", json={}))
        assert (await elsewhere.get("/api/status")).status_code == 200
        assert (await elsewhere.get("/healthz")).status_code == 200


async def test_simultaneous_requests_cannot_exceed_the_limit(replicas: Replicas, alice: Person) -> None:
    async with client_at(replicas.second.url, address(), alice.token) as elsewhere:
        answers = await asyncio.gather(
            *(client.get("/api/auth/me") for client in (alice.client, elsewhere) for _ in range(2 * READS))
        )
    assert sorted(answer.status_code for answer in answers) == [200] * READS + [429] * (3 * READS)


async def test_chats_are_counted_in_their_own_window(alice: Person) -> None:
    session = await alice.create_session()
    for _ in range(2):
        assert (await alice.client.post(f"/api/sessions/{session}/chat")).status_code == 200
    assert_limited(await alice.client.post(f"/api/sessions/{session}/chat"))


async def test_a_login_counts_for_its_address_with_any_account_token_or_header(
    replicas: Replicas, alice: Person
) -> None:
    """Another account, a token or a forged header must not make it count for another address."""
    here = address()
    for number in range(WRITES):
        async with client_at(replicas.first.url, f"203.0.113.{number}, {here}", alice.token) as client:
            body = {"username": f"nobody-{number}", "password": "wrong password"}
            assert (await client.post("/api/auth/login", json=body)).status_code == 401
    async with client_at(replicas.second.url, here, alice.token) as client:
        assert_limited(await client.post("/api/auth/login", json={"username": alice.name, "password": PASSWORD}))
        assert_limited(await client.post("/api/auth/refresh", json={"refresh_token": alice.refresh_token}))
    async with client_at(replicas.second.url, address()) as client:
        data(await client.post("/api/auth/login", json={"username": alice.name, "password": PASSWORD}))


@pytest.mark.parametrize("exists", [True, False])
async def test_a_login_counts_for_its_account_from_any_address(replicas: Replicas, alice: Person, exists: bool) -> None:
    """Guessing from many addresses is limited too, and the limit does not reveal which accounts exist."""
    name = alice.name if exists else f"nobody-{time.time_ns()}"
    for number in range(WRITES):
        async with client_at(replicas.first.url, address()) as client:
            body = {"username": name.upper() if number % 2 else name, "password": "wrong password"}
            assert (await client.post("/api/auth/login", json=body)).status_code == 401
    async with client_at(replicas.first.url, address()) as client:
        assert_limited(await client.post("/api/auth/login", json={"username": name, "password": PASSWORD}))


async def test_requests_with_an_invalid_token_count_for_the_address(replicas: Replicas) -> None:
    async with client_at(replicas.first.url, address(), "not.a.token") as client:
        for _ in range(READS):
            assert (await client.get("/api/auth/me")).status_code == 401
        assert_limited(await client.get("/api/auth/me"))


@asynccontextmanager
async def open_list(url: str, token: str) -> AsyncIterator[httpx.Response]:
    async with client_at(url, address(), token) as client, client.stream("POST", "/api/sessions/stream") as response:
        if response.status_code != 200:
            await response.aread()
        yield response


async def wait_until_no_streams(redis: Redis, user: str) -> None:
    """Wait until the user has no lease left. This asks Redis, because the api limits requests."""

    async def has_no_lease() -> bool:
        return await redis.zcount(key_of_streams(user), await now_of(redis), "+inf") == 0

    await until(has_no_lease, "all leases of the user have ended")


def key_of_streams(user: str) -> str:
    return f"moorage:leases:stream:{user}"


async def ends_of_leases(redis: Redis, user: str) -> list[float]:
    """When the user's leases end unless they are renewed, in milliseconds of Redis's clock."""
    members: Any = await redis.zrange(key_of_streams(user), 0, -1, withscores=True)
    return [float(score) for _, score in members]


async def now_of(redis: Redis) -> float:
    seconds, micros = await redis.time()
    return seconds * 1000 + micros / 1000


@pytest.fixture
async def redis(services: Services) -> AsyncIterator[Redis]:
    client = Redis.from_url(services.valkey.url)
    yield client
    await client.aclose()


async def test_open_streams_are_counted_over_all_replicas_until_they_close(
    replicas: Replicas, alice: Person, redis: Redis
) -> None:
    async with AsyncExitStack() as stack:
        for url in (replicas.first.url, replicas.second.url):
            assert (await stack.enter_async_context(open_list(url, alice.token))).status_code == 200
        async with open_list(replicas.second.url, alice.token) as refused:
            assert_limited(refused, at_most=LEASE_SECONDS)
    await wait_until_no_streams(redis, alice.id)
    async with open_list(replicas.second.url, alice.token) as again:
        assert again.status_code == 200


async def test_a_closed_stream_can_be_replaced_at_once(redis: Redis) -> None:
    """A page that reloads closes its stream and opens another one immediately."""
    leases = Leases(redis, {ConnectionKind.STREAM: 1}, lease_seconds=60)
    user, other = uuid4(), uuid4()
    async with leases:
        async with leases.hold(ConnectionKind.STREAM, other):
            for _ in range(50):
                async with leases.hold(ConnectionKind.STREAM, user):
                    pass
            with pytest.raises(LimitedError):
                await leases.hold(ConnectionKind.STREAM, other).__aenter__()


async def test_a_message_is_not_stored_if_the_stream_limit_is_reached(replicas: Replicas, alice: Person) -> None:
    session = await alice.create_session()
    async with AsyncExitStack() as stack:
        for _ in range(STREAMS):
            await stack.enter_async_context(open_list(replicas.first.url, alice.token))
        answer = await alice.client.post(f"/api/sessions/{session}/chat", json={"message": "hello"})
        assert_limited(answer, at_most=LEASE_SECONDS)
        assert data(await alice.client.get(f"/api/sessions/{session}"))["events"] == []


async def test_a_refused_chat_releases_its_lease(alice: Person, redis: Redis) -> None:
    answer = await alice.client.post("/api/sessions/0192f0c1-2f4e-7d3a-9c55-6b7d8e9f0a1b/chat")
    assert answer.status_code == 404
    await wait_until_no_streams(redis, alice.id)


async def test_an_open_stream_keeps_its_lease_until_its_replica_dies(
    replicas: Replicas, alice: Person, redis: Redis
) -> None:
    third = await replicas.platform.start_api()
    async with AsyncExitStack() as stack:
        for _ in range(STREAMS):
            await stack.enter_async_context(open_list(third.url, alice.token))
        last_end = max(await ends_of_leases(redis, alice.id))

        async def are_renewed() -> bool:
            return min(await ends_of_leases(redis, alice.id)) > last_end

        await until(are_renewed, "all leases are renewed")
        async with open_list(replicas.first.url, alice.token) as refused:
            assert_limited(refused, at_most=LEASE_SECONDS)
        await third.kill()
    await wait_until_no_streams(redis, alice.id)
    async with open_list(replicas.first.url, alice.token) as again:
        assert again.status_code == 200


async def close_code(url: str) -> int:
    async with connect(url.replace("http", "ws", 1), proxy=None) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_vnc_closes_with_the_limit_code_when_a_limit_is_reached(
    replicas: Replicas, alice: Person, redis: Redis
) -> None:
    """First another connection holds the only VNC lease; then the request window is full."""
    session = await alice.create_session()
    url = f"{replicas.first.url}/api/sessions/{session}/vnc?token={alice.token}"
    key = f"moorage:leases:screen:{alice.id}"
    await redis.zadd(key, {"another": await now_of(redis) + 600_000})
    assert await close_code(url) == 1013
    await redis.delete(key)
    assert await close_code(url) == 1011  # no sandbox host runs in this test
    for _ in range(READS - 2):
        data(await alice.client.get("/api/auth/me"))
    assert await close_code(url) == 1013
