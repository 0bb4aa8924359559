"""Give every request an id. It is in each log line about the request, and in the response header X-Request-ID."""

from __future__ import annotations

import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moorage_common.logging_setup import log_context

HEADER = b"x-request-id"
ACCEPTED = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestId:
    """Uses the id from a client or a proxy if it has the usual form, and creates one otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request_id = get_request_id(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (HEADER, request_id.encode())]
            await send(message)

        with log_context(request_id=request_id):
            await self._app(scope, receive, send_with_id)


def get_request_id(scope: Scope) -> str:
    """The id of the request, kept in the scope's state. The first call chooses it."""
    state = scope.setdefault("state", {})
    if "request_id" not in state:
        sent = next((value for name, value in scope["headers"] if name == HEADER), b"")
        state["request_id"] = sent.decode() if ACCEPTED.fullmatch(sent) else secrets.token_hex(8)
    return str(state["request_id"])
