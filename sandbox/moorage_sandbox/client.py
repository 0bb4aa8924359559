"""The client of a gate: signs short-lived tokens and sends HTTP requests. Needs httpx and pyjwt, but no web server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import ValidationError

from moorage_sandbox.messages import (
    BindResponse,
    CallRequest,
    CallResponse,
    ErrorResponse,
    FileWritten,
    ShellView,
    SkillDigests,
)
from moorage_sandbox.protocol import ALGORITHM, GateError, Scope

TOKEN_SECONDS = 60
REUSE_SECONDS = 30
CONNECT_TIMEOUT_SECONDS = 5
UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=None)
"""A limited pool may close a connection that it has just given to a request (encode/httpcore#1110)."""
CALL_MARGIN_SECONDS = 15
"""How much longer than a call's timeout the client waits for its answer."""


class TokenSigner:
    """Signs tokens with one Ed25519 key. A token is reused for REUSE_SECONDS, because signing is slow."""

    def __init__(self, key: Ed25519PrivateKey, *, key_id: str, issuer: str) -> None:
        self._key = key
        self._key_id = key_id
        self._issuer = issuer
        self._fresh: dict[tuple[str, str, int, Scope], tuple[float, str]] = {}

    @classmethod
    def from_file(cls, path: Path, *, key_id: str, issuer: str) -> Self:
        """Read a PEM (PKCS #8). Raises ValueError for a key of another kind."""
        key = load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{path.name} must hold an Ed25519 private key")
        return cls(key, key_id=key_id, issuer=issuer)

    def token(self, *, sandbox_uid: str, session_id: str, epoch: int, scope: Scope) -> str:
        now = time.time()
        subject = (sandbox_uid, session_id, epoch, scope)
        signed_at, token = self._fresh.get(subject, (0.0, ""))
        if now - signed_at < REUSE_SECONDS:
            return token
        claims = {
            "iss": self._issuer,
            "aud": sandbox_uid,
            "session": session_id,
            "epoch": epoch,
            "scopes": [scope],
            "iat": int(now),
            "exp": int(now) + TOKEN_SECONDS,
        }
        token = jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self._key_id})
        if len(self._fresh) > 1000:
            self._fresh.clear()
        self._fresh[subject] = (now, token)
        return token


@dataclass(frozen=True)
class RemoteFile:
    size: int
    chunks: AsyncIterator[bytes]


class GateClient:
    """The connection of one session to its sandbox, as an async context manager. Every method raises GateError."""

    def __init__(self, url: str, *, signer: TokenSigner, sandbox_uid: str, session_id: str, epoch: int) -> None:
        self._url = url.rstrip("/")
        self._signer = signer
        self._sandbox_uid = sandbox_uid
        self._session_id = session_id
        self._epoch = epoch
        self._http = httpx.AsyncClient(
            base_url=self._url,
            timeout=httpx.Timeout(30, connect=CONNECT_TIMEOUT_SECONDS),
            limits=UNLIMITED,
            trust_env=False,  # requests to a sandbox must not go through a proxy of the environment
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    def headers(self, scope: Scope) -> dict[str, str]:
        token = self._signer.token(
            sandbox_uid=self._sandbox_uid, session_id=self._session_id, epoch=self._epoch, scope=scope
        )
        return {"Authorization": f"Bearer {token}"}

    def vnc_url(self) -> str:
        """Return the address for a WebSocket client, which must send `headers(Scope.VNC)`."""
        return self._url.replace("http", "ws", 1) + "/v1/vnc"

    async def bind(self) -> BindResponse:
        """Bind the sandbox to this session. Binding it again is allowed; another session is refused."""
        return BindResponse.model_validate_json(await self._request("POST", "/v1/bind", Scope.BIND))

    async def call(self, key: str, function: str, args: Mapping[str, Any], *, timeout_seconds: float) -> CallResponse:
        """Run a function at most once for `key`. A repeated call returns the outcome of the first one."""
        body = CallRequest(function=function, args=dict(args), timeout_seconds=timeout_seconds)
        content = await self._request(
            "POST",
            f"/v1/calls/{quote(key, safe='')}",
            Scope.CALL,
            content=body.model_dump_json().encode(),
            timeout=timeout_seconds + CALL_MARGIN_SECONDS,
        )
        return CallResponse.model_validate_json(content)

    async def view_shell(self, name: str) -> ShellView:
        content = await self._request("GET", f"/v1/shells/{quote(name, safe='')}", Scope.SHELL_READ)
        return ShellView.model_validate_json(content)

    @asynccontextmanager
    async def read_file(self, path: str) -> AsyncIterator[RemoteFile]:
        """Open a file of the sandbox and stream its bytes."""
        try:
            async with self._http.stream(
                "GET", "/v1/files", params={"path": path}, headers=self.headers(Scope.FILE_READ)
            ) as response:
                if response.status_code != 200:
                    raise refusal(response.status_code, await response.aread())
                yield RemoteFile(int(response.headers["content-length"]), response.aiter_raw())
        except httpx.HTTPError as error:
            raise GateError("unreachable", "The sandbox does not answer") from error

    async def write_file(self, path: str, chunks: AsyncIterable[bytes], *, size: int) -> FileWritten:
        """Stream `size` bytes into a file. The file is replaced only when all bytes have arrived."""
        content = await self._request(
            "PUT",
            "/v1/files",
            Scope.FILE_WRITE,
            params={"path": path},
            content=chunks,
            headers={"Content-Length": str(size)},
            timeout=120,
        )
        return FileWritten.model_validate_json(content)

    async def skill_digests(self) -> dict[str, str]:
        """Return the digests of installed skills' archives by id. A skill with the same digest need not be sent."""
        content = await self._request("GET", "/v1/skills", Scope.SKILLS)
        return SkillDigests.model_validate_json(content).digests

    async def put_skill(self, skill_id: str, digest: str, archive: bytes) -> None:
        """Install a skill from its archive (tar.gz) in place of an older version, completely or not at all."""
        await self._request(
            "PUT",
            f"/v1/skills/{quote(skill_id, safe='')}",
            Scope.SKILLS,
            params={"digest": digest},
            content=archive,
            timeout=60,
        )

    async def _request(
        self,
        method: str,
        path: str,
        scope: Scope,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> bytes:
        try:
            response = await self._http.request(
                method,
                path,
                params=params,
                content=content,
                headers={**self.headers(scope), **(headers or {})},
                timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT_SECONDS),
            )
        except httpx.HTTPError as error:
            raise GateError("unreachable", "The sandbox does not answer") from error
        if response.status_code != 200:
            raise refusal(response.status_code, response.content)
        return response.content


def refusal(status: int, body: bytes) -> GateError:
    try:
        answer = ErrorResponse.model_validate_json(body)
    except ValidationError:
        return GateError("unreachable", f"The sandbox answered with status {status}", status=status)
    return GateError(answer.error, answer.message, status=status)
