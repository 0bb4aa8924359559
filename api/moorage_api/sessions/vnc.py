"""The VNC WebSocket: connects a browser's WebSocket to the gate's and forwards the bytes unchanged."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Depends, Query, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from moorage_api.errors import DomainError, ForbiddenError, LimitedError, NotFoundError, UnauthenticatedError
from moorage_api.events.hub import Hub
from moorage_api.http.provided import provide
from moorage_api.limits.leases import ConnectionKind
from moorage_api.limits.request_windows import Bucket
from moorage_api.sandboxes.errors import NO_SANDBOX
from moorage_api.sandboxes.reader import SandboxReader
from moorage_api.sessions.service import SessionService
from moorage_api.users.callers import Access, ConnectionLeases, Limits, Users
from moorage_common.tasks import race

logger = logging.getLogger(__name__)
router = APIRouter(tags=["sessions"])

CLOSE_CODE_BY_ERROR: dict[type[DomainError], int] = {
    UnauthenticatedError: 4401,
    ForbiddenError: 4403,
    NotFoundError: 4404,
    LimitedError: 1013,
}
"""Source: the wire document, "VNC WebSocket"."""
SANDBOX_FAILED = 1011
CONNECT_TIMEOUT_SECONDS = 10


Sessions = Annotated[SessionService, Depends(provide(SessionService))]
Reading = Annotated[SandboxReader, Depends(provide(SandboxReader))]
Followed = Annotated[Hub, Depends(provide(Hub))]


@router.websocket("/sessions/{session_id}/vnc")
async def watch_session(
    socket: WebSocket,
    session_id: str,
    sessions: Sessions,
    users: Users,
    limits: Limits,
    leases: ConnectionLeases,
    access: Access,
    reading: Reading,
    hub: Followed,
    token: Annotated[str, Query()] = "",
) -> None:
    """Relay the sandbox's screen. The socket is accepted first, because a browser sees no close code otherwise."""
    offered = socket.scope.get("subprotocols", [])
    await socket.accept(subprotocol="binary" if "binary" in offered else None)
    try:
        check_origin(socket, access.allowed_origins)
        await limits.spend(Bucket.READS, socket, access_token=token)
        user = await users.authenticate(token)
        identifier = (await sessions.get(to_uuid(session_id), reader=user)).id
        async with leases.hold(ConnectionKind.SCREEN, user.id):
            sandbox = await reading.find(identifier)
            url, headers = reading.vnc(sandbox, identifier)
            async with connect_to_gate(url, headers) as screen:
                await relay(socket, screen, hub, user.id)
    except DomainError as error:
        await close(socket, CLOSE_CODE_BY_ERROR.get(type(error), SANDBOX_FAILED), str(error))
    except (OSError, TimeoutError, WebSocketException) as error:
        logger.warning("The VNC connection of session %s failed: %s", session_id, type(error).__name__)
        await close(socket, SANDBOX_FAILED, "Could not connect to the sandbox's screen; try again")


def check_origin(socket: WebSocket, allowed: Sequence[str]) -> None:
    """Apply the CORS rule to a WebSocket: browsers send Origin, but do not check CORS. Raises ForbiddenError."""
    origin = socket.headers.get("origin")
    same_host = origin is not None and urlsplit(origin).netloc == socket.headers.get("host")
    if origin is not None and not same_host and origin not in allowed and "*" not in allowed:
        raise ForbiddenError("This origin is not allowed; add it to MOORAGE_CORS_ORIGINS")


def to_uuid(session_id: str) -> UUID:
    """Raises NotFoundError: FastAPI's own refusal of a path would come before the socket is accepted."""
    try:
        return UUID(session_id)
    except ValueError:
        raise NotFoundError("This session does not exist") from None


@asynccontextmanager
async def connect_to_gate(url: str, headers: dict[str, str]) -> AsyncIterator[ClientConnection]:
    """Connect to the gate's VNC WebSocket. Raises NotFoundError if no run has used the sandbox yet.

    The connection is not compressed: RFB already compresses pictures, and doing it twice divides the throughput by 40.
    """
    opening = connect(
        url,
        additional_headers=headers,
        compression=None,
        max_size=None,
        open_timeout=CONNECT_TIMEOUT_SECONDS,
        proxy=None,
    )
    try:
        screen = await opening
    except InvalidStatus as error:
        if error.response.status_code == HTTPStatus.CONFLICT:
            raise NotFoundError(NO_SANDBOX) from error
        raise
    async with screen:
        yield screen


async def relay(socket: WebSocket, screen: ClientConnection, hub: Hub, user_id: UUID) -> None:
    """Forward bytes in both directions until one side ends or the user loses access."""
    async with race(
        relay_to_screen(socket, screen), relay_from_screen(screen, socket), wait_for_lost_access(hub, user_id)
    ) as tasks:
        pass
    *_, lost_access = tasks
    if lost_access.done() and not lost_access.cancelled():
        await close(socket, CLOSE_CODE_BY_ERROR[ForbiddenError], "You have lost access to this session")
    else:
        await close(socket, SANDBOX_FAILED, "The sandbox closed the connection; connect again")


async def relay_to_screen(socket: WebSocket, screen: ClientConnection) -> None:
    with suppress(WebSocketDisconnect, ConnectionClosed):
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            await screen.send(message.get("bytes") or (message.get("text") or "").encode())


async def relay_from_screen(screen: ClientConnection, socket: WebSocket) -> None:
    """Forward bytes to the browser. While it is slow we stop reading from the gate, which stops reading the screen."""
    with suppress(WebSocketDisconnect, ConnectionClosed, OSError):
        async for data in screen:
            await socket.send_bytes(data if isinstance(data, bytes) else data.encode())


async def wait_for_lost_access(hub: Hub, user_id: UUID) -> None:
    """Return when the user loses access. A deleted session needs no check: its sandbox closes the connection."""
    async with hub.follow_user(user_id) as subscription:
        while subscription.allowed:
            await subscription.wait(60)


async def close(socket: WebSocket, code: int, reason: str) -> None:
    if socket.application_state is WebSocketState.CONNECTED:
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(code, reason[:100])
