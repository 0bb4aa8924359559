"""Accounts of the api and clients that are logged in to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

import httpx

from moorage_api.database import create_database, create_engine
from moorage_api.users.admin import create_admin
from support.waiting import HANG_SECONDS

PASSWORD = "correct horse"


@dataclass
class Person:
    """A user account. `client` sends its token with every request."""

    id: str
    name: str
    token: str
    refresh_token: str
    client: httpx.AsyncClient

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def create_session(self) -> str:
        return str(data(await self.client.post("/api/sessions"))["session_id"])

    async def upload(self, name: str = "notes.txt", content: bytes = b"hello", kind: str = "text/plain") -> Any:
        return data(await self.client.post("/api/files", files={"file": (name, content, kind)}))


def data(response: httpx.Response) -> Any:
    """Return the `data` of a successful response's envelope."""
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["code"] == 200
    return body["data"]


def client_for(url: str, token: str | None = None) -> httpx.AsyncClient:
    """A client that never closes a connection to keep its pool small.

    httpcore may close one that it has just given to a request (encode/httpcore#1110).
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=HANG_SECONDS, limits=limits)


async def register(url: str, name: str | None = None) -> Person:
    name = name or f"user-{uuid4().hex[:12]}"
    async with client_for(url) as client:
        body = {"username": name, "password": PASSWORD}
        return person(url, data(await client.post("/api/auth/register", json=body)))


async def login(url: str, name: str, password: str = PASSWORD) -> Person:
    async with client_for(url) as client:
        return person(url, data(await client.post("/api/auth/login", json={"username": name, "password": password})))


async def admin(url: str, database_url: str) -> Person:
    """Create a super_admin in the database, because HTTP offers no way to become one, and log in."""
    name = f"admin-{uuid4().hex[:12]}"
    engine = create_engine(database_url)
    await create_admin(create_database(engine), username=name, password=PASSWORD)
    await engine.dispose()
    return await login(url, name)


def person(url: str, answer: dict[str, Any]) -> Person:
    user, tokens = answer["user"], answer["tokens"]
    return Person(
        id=user["id"],
        name=user["username"],
        token=tokens["access_token"],
        refresh_token=tokens["refresh_token"],
        client=client_for(url, tokens["access_token"]),
    )
