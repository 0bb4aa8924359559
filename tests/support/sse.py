"""Reads Server-Sent Events as a client does, and resumes after an interruption."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from support.waiting import HANG_SECONDS

ENDINGS = frozenset({"done", "wait", "error"})


@dataclass(frozen=True)
class Frame:
    id: str
    event: str
    data: dict[str, Any]

    @property
    def is_stored(self) -> bool:
        return "seq" in self.data


async def frames(response: httpx.Response) -> AsyncIterator[Frame]:
    """The frames of an open response, without heartbeats."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Frame(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
            fields = {}


@dataclass
class Chat:
    """Collects the stored events of one session and reconnects after every interruption.

    `url` is asked for at every try, so that a test can move to another replica.
    """

    session_id: str
    token: str
    url: Callable[[], str]
    stored: list[Frame] = field(default_factory=list)
    partials: list[Frame] = field(default_factory=list)
    breaks: int = 0
    """How often a stream ended before the turn had ended."""

    @property
    def cursor(self) -> str | None:
        return self.stored[-1].id if self.stored else None

    def types(self) -> list[str]:
        return [frame.event for frame in self.stored]

    def all(self, event: str, **having: Any) -> list[dict[str, Any]]:
        return [
            frame.data
            for frame in self.stored
            if frame.event == event and all(frame.data.get(name) == value for name, value in having.items())
        ]

    async def say(
        self,
        message: str,
        *,
        attachments: list[str] | None = None,
        timeout_seconds: float = 2 * HANG_SECONDS,
        on_frame: Callable[[Frame], Any] | None = None,
    ) -> Frame:
        """Send a message, follow the turn through every interruption, and return the frame that ends it."""
        body: dict[str, Any] | None = {"message": message, "attachments": attachments or []}
        async with asyncio.timeout(timeout_seconds):
            while True:
                try:
                    ending = await self._follow({**(body or {}), "event_id": self.cursor}, on_frame)
                except (httpx.TransportError, httpx.HTTPStatusError):
                    ending = None
                    self.breaks += 1
                    await asyncio.sleep(0.05)
                if ending is not None:
                    return ending
                if body is not None and await self._has_message(message):
                    body = None

    async def _has_message(self, message: str) -> bool:
        """Whether the message is in the log. A client without an answer must look before it sends a message again."""
        if self.all("message", role="user", message=message):
            return True
        while True:
            try:
                async with self._client() as client:
                    answer = await client.get(f"/api/sessions/{self.session_id}")
                    answer.raise_for_status()
            except (httpx.TransportError, httpx.HTTPStatusError):
                await asyncio.sleep(0.05)
                continue
            events = answer.json()["data"]["events"]
            return any(item["event"] == "message" and item["data"]["message"] == message for item in events)

    async def _follow(self, body: dict[str, Any], on_frame: Callable[[Frame], Any] | None) -> Frame | None:
        async with (
            self._client() as client,
            client.stream("POST", f"/api/sessions/{self.session_id}/chat", json=body) as response,
        ):
            response.raise_for_status()
            async for frame in frames(response):
                (self.stored if frame.is_stored else self.partials).append(frame)
                if on_frame is not None:
                    on_frame(frame)
                if frame.event in ENDINGS:
                    return frame
        return None

    def _client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.AsyncClient(base_url=self.url(), headers=headers, timeout=httpx.Timeout(HANG_SECONDS))
