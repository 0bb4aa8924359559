"""Read files and shells in a sandbox for the api's endpoints. The api's key has only the scopes for reading."""

from __future__ import annotations

from uuid import UUID

from moorage_api.errors import NotFoundError, TooLargeError
from moorage_api.sandboxes.errors import NO_SANDBOX, as_domain_error
from moorage_api.sandboxes.provider import Sandbox, Sandboxes
from moorage_sandbox.client import GateClient, TokenSigner
from moorage_sandbox.messages import ShellView
from moorage_sandbox.protocol import GateError, Scope

TEXT_LIMIT_BYTES = 2 * 1024 * 1024
"""Largest file that can be viewed. The agent can save a larger file, and the user can then download it."""


class SandboxReader:
    def __init__(self, sandboxes: Sandboxes, signer: TokenSigner) -> None:
        self._sandboxes = sandboxes
        self._signer = signer

    async def find(self, session_id: UUID) -> Sandbox:
        """Find the session's sandbox. Raises NotFoundError if it has no live one; it is not created."""
        sandbox = await self._sandboxes.find(session_id)
        if sandbox is None:
            raise NotFoundError(NO_SANDBOX)
        return sandbox

    async def file_text(self, session_id: UUID, path: str) -> str:
        sandbox = await self.find(session_id)
        parts: list[bytes] = []
        size = 0
        async with self._client(sandbox, session_id) as client:
            try:
                async with client.read_file(path) as file:
                    async for chunk in file.chunks:
                        size += len(chunk)
                        if size > TEXT_LIMIT_BYTES:
                            message = (
                                f"This file is larger than {TEXT_LIMIT_BYTES // 2**20} MiB; ask the agent to save it"
                            )
                            raise TooLargeError(message, limit_bytes=TEXT_LIMIT_BYTES)
                        parts.append(chunk)
            except GateError as error:
                raise as_domain_error(error) from error
        return b"".join(parts).decode("utf-8", "replace")

    async def shell(self, session_id: UUID, name: str) -> ShellView:
        sandbox = await self.find(session_id)
        async with self._client(sandbox, session_id) as client:
            try:
                return await client.view_shell(name)
            except GateError as error:
                raise as_domain_error(error) from error

    def vnc(self, sandbox: Sandbox, session_id: UUID) -> tuple[str, dict[str, str]]:
        """URL and headers of the gate's VNC WebSocket."""
        client = self._client(sandbox, session_id)
        return client.vnc_url(), client.headers(Scope.VNC)

    def _client(self, sandbox: Sandbox, session_id: UUID) -> GateClient:
        return GateClient(
            sandbox.url, signer=self._signer, sandbox_uid=sandbox.uid, session_id=str(session_id), epoch=0
        )
