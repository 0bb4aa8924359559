"""Limit the size of every request body except uploads, which check their own limit while they stream."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moorage_api.http.errors import envelope_response

LIMIT_BYTES = 2 * 1024 * 1024
STREAMED_PATHS = frozenset({"/api/files", "/api/status/minio/upload"})
TEXT = f"The request body is larger than the limit of {LIMIT_BYTES // 2**20} MiB"


class BodyLimit:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in STREAMED_PATHS:
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > LIMIT_BYTES:
            data = {"error": "too_large", "limit_bytes": LIMIT_BYTES}
            await envelope_response(413, TEXT, data)(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > LIMIT_BYTES:
                raise HTTPException(413, TEXT)
            return message

        await self._app(scope, receive_limited, send)
