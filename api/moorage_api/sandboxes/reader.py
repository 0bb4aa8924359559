"""What the api itself reads in a sandbox: files and shells, with its own key's narrow scopes."""

from __future__ import annotations

from uuid import UUID

from moorage_api.errors import NotFoundError, TooLargeError
from moorage_api.sandboxes.errors import NO_SANDBOX, as_domain_error
from moorage_api.sandboxes.provider import Sandbox, Sandboxes
from moorage_sandbox.client import GateClient, TokenSigner
from moorage_sandbox.messages import ShellView
from moorage_sandbox.protocol import GateError, Scope

TEXT_LIMIT_BYTES = 2 * 1024 * 1024
"""A file view is for reading; bigger files are downloaded after the agent saved them."""


class SandboxReader:
    def __init__(self, sandboxes: Sandboxes, signer: TokenSigner) -> None:
        self._sandboxes = sandboxes
        self._signer = signer

    async def find(self, session_id: UUID) -> Sandbox:
        """Raises NotFoundError where the session has no live sandbox: looking makes none."""
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
                            raise TooLargeError("This file is too large to be shown", limit_bytes=TEXT_LIMIT_BYTES)
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
