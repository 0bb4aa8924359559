"""Each server that the api uses is restarted under light traffic, and its pooled connections fail no later request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest

from support.accounts import Person, client_for, data
from support.processes import Platform
from support.services import Services

NewUser = Callable[[str], Awaitable[Person]]
Request = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]

GRACE_SECONDS = 2
AT_ONCE = 24
"""Requests at once: they fill the pools before a restart, and use every pooled connection after it."""


async def statuses(client: httpx.AsyncClient, requests: list[Request]) -> list[int]:
    answers = await asyncio.gather(*(request(client) for request in requests for _ in range(AT_ONCE)))
    return [answer.status_code for answer in answers]


async def send_until(stop: asyncio.Event, client: httpx.AsyncClient, requests: list[Request]) -> dict[float, int]:
    """Light traffic: one request after the other. The status of each, by the time when it was sent."""
    found = {}
    while not stop.is_set():
        for request in requests:
            sent = time.monotonic()
            found[sent] = (await request(client)).status_code
    return found


@pytest.mark.parametrize("name", ["valkey", "postgres", "s3"])
async def test_no_request_fails_later_than_two_seconds_after_a_server_is_back(
    name: str, platform: Platform, services: Services, new_user: NewUser
) -> None:
    api = await platform.start_api()
    alice = await new_user(api.url)
    file_id = data(await alice.client.post("/api/files", files={"file": ("a.txt", b"hello")}))["id"]
    requests: list[Request] = [
        lambda client: client.get("/api/auth/me"),
        lambda client: client.post("/api/sessions"),
        lambda client: client.get(f"/api/files/{file_id}/download"),
        lambda client: client.post("/api/files", files={"file": ("b.txt", b"hello")}),
    ]
    server = getattr(services, name)
    async with client_for(api.url, alice.token) as client:
        assert set(await statuses(client, requests)) == {200}
        stop = asyncio.Event()
        traffic = asyncio.create_task(send_until(stop, client, requests[:1]))
        await server.stop()
        await server.restart()
        back = time.monotonic()
        await asyncio.sleep(GRACE_SECONDS)
        later = await statuses(client, requests)
        stop.set()
        light = [status for sent, status in (await traffic).items() if sent > back + GRACE_SECONDS]
    assert (set(later), set(light)) == ({200}, {200}), platform.logs()
