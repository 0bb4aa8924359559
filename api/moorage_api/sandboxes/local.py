"""Sandboxes of one machine: a client of the sandbox host, which listens on a Unix socket."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from moorage_api.errors import UnavailableError
from moorage_api.sandboxes.provider import Report, Sandbox, SandboxState, report_nothing
from moorage_crds.types import SkillPin
from moorage_sandbox.client import UNLIMITED

ENSURE_TIMEOUT_SECONDS = 60
TIMEOUT_SECONDS = 10


class LocalSandboxes:
    """Implements `Sandboxes`. It connects at first use."""

    def __init__(self, socket: Path) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(socket), retries=1, limits=UNLIMITED)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://host", timeout=TIMEOUT_SECONDS)

    async def register(self, session_id: UUID, *, owner_id: UUID) -> None:
        """Nothing to do: the host learns about a session when its sandbox is first needed."""

    async def ensure(
        self,
        session_id: UUID,
        *,
        owner_id: UUID,
        skills: Sequence[SkillPin] = (),
        report: Report = report_nothing,
    ) -> Sandbox:
        """See `Sandboxes.ensure`. `skills` is ignored: all skills are sent through the gate later."""
        await report(SandboxState("starting"))
        try:
            sandbox = await self._start(session_id)
        except UnavailableError as error:
            await report(SandboxState("failed", str(error)))
            raise
        await report(SandboxState("ready"))
        return sandbox

    async def _start(self, session_id: UUID) -> Sandbox:
        answer = await self._request("PUT", session_id, timeout=ENSURE_TIMEOUT_SECONDS)
        assert answer is not None
        if answer.get("phase") != "ready":
            raise UnavailableError(f"The sandbox could not start: {answer.get('reason') or 'no reason given'}")
        return Sandbox(uid=answer["uid"], url=answer["url"])

    async def find(self, session_id: UUID) -> Sandbox | None:
        answer = await self._request("GET", session_id)
        return Sandbox(uid=answer["uid"], url=answer["url"]) if answer and answer.get("phase") == "ready" else None

    async def ping(self) -> None:
        try:
            (await self._http.get("/healthz", timeout=2)).raise_for_status()
        except httpx.HTTPError as error:
            raise UnavailableError("The sandbox host does not answer") from error

    async def suspend(self, session_id: UUID) -> bool:
        return await self._request("DELETE", session_id) is not None

    async def delete(self, session_id: UUID) -> None:
        await self._request("DELETE", session_id)

    async def find_unregistered(self, sessions: Sequence[UUID]) -> Sequence[UUID]:
        return []

    async def close(self) -> None:
        await self._http.aclose()

    async def _request(
        self, method: str, session_id: UUID, *, timeout: float = TIMEOUT_SECONDS
    ) -> dict[str, Any] | None:
        """Send a request and return the host's response, None for 404."""
        try:
            response = await self._http.request(method, f"/v1/sandboxes/{session_id}", timeout=timeout)
        except httpx.HTTPError as error:
            raise UnavailableError("The sandbox host does not answer") from error
        if response.status_code == 404:
            return None
        if response.status_code >= 400:
            raise UnavailableError(f"The sandbox host refused the request: {_message(response)}")
        answer: dict[str, Any] = response.json() if response.content else {}
        return answer


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}"
