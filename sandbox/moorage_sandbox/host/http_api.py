"""The HTTP application of the host, on a Unix socket. Api and runner of the same machine use it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from moorage_common.tasks import race
from moorage_sandbox.host.sandboxes.registry import LimitReachedError, Registry
from moorage_sandbox.host.sandboxes.sandbox import HostSandbox, SandboxNotReadyError
from moorage_sandbox.host.trust_mirror import TrustMirror
from moorage_sandbox.protocol import KEEP_ALIVE_SECONDS

logger = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 1


class InvalidSessionError(Exception):
    """The id of the session is not a UUID in its canonical form."""


class HostApp:
    """The routes and the objects that they share. `asgi` is the application."""

    def __init__(self, registry: Registry, trust: TrustMirror) -> None:
        self._registry = registry
        self._trust = trust
        self.asgi = Starlette(
            routes=[
                Route("/healthz", self.healthz),
                Route("/v1/sandboxes", self.list_all),
                Route("/v1/sandboxes/{session_id}", self.read, methods=["GET"]),
                Route("/v1/sandboxes/{session_id}", self.ensure, methods=["PUT"]),
                Route("/v1/sandboxes/{session_id}", self.delete, methods=["DELETE"]),
            ],
            exception_handlers={InvalidSessionError: render_invalid, LimitReachedError: render_limit},
        )

    async def healthz(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def list_all(self, _: Request) -> Response:
        return JSONResponse({"sandboxes": [to_json(sandbox) for sandbox in self._registry.all()]})

    async def read(self, request: Request) -> Response:
        sandbox = self._registry.get(session_of(request))
        if sandbox is None:
            return refusal(404, "not_found", "This session has no running sandbox")
        return JSONResponse(to_json(sandbox))

    async def ensure(self, request: Request) -> Response:
        """Make the sandbox if needed and wait until it is ready. A sandbox that fails is a 503 with the reason."""
        session_id = session_of(request)
        try:
            self._trust.refresh()
            sandbox = await self._registry.ensure(session_id)
        except (OSError, ValueError) as error:
            logger.error("The sandbox of session %s could not be made: %s", session_id, error)
            return refusal(503, "failed", f"The sandbox could not be made: {error}")
        try:
            await sandbox.wait_ready()
        except SandboxNotReadyError as error:
            return refusal(503, "failed", str(error))
        return JSONResponse(to_json(sandbox))

    async def delete(self, request: Request) -> Response:
        if not await self._registry.delete(session_of(request)):
            return refusal(404, "not_found", "This session has no sandbox")
        return Response(status_code=204)


def session_of(request: Request) -> UUID:
    text = request.path_params["session_id"]
    try:
        session_id = UUID(text)
    except ValueError:
        raise InvalidSessionError from None
    if str(session_id) != text:  # the id names a directory, so each session has only one spelling
        raise InvalidSessionError
    return session_id


def to_json(sandbox: HostSandbox) -> dict[str, Any]:
    return {
        "session_id": str(sandbox.record.session_id),
        "uid": sandbox.record.uid,
        "url": sandbox.url,
        "phase": sandbox.phase.value,
        "reason": sandbox.reason,
        "created": sandbox.record.created,
    }


def refusal(status: int, error: str, message: str) -> JSONResponse:
    return JSONResponse({"error": error, "message": message}, status_code=status)


async def render_invalid(_: Request, __: Exception) -> Response:
    return refusal(400, "invalid", "The id of a session must be a UUID in lower case with hyphens")


async def render_limit(_: Request, error: Exception) -> Response:
    return refusal(503, "limit", str(error))


class HttpServer(uvicorn.Server):
    """Does not handle signals. The host handles them, because it must also end the sandboxes."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def listen_on(path: Path) -> Iterator[socket.socket]:
    """Listen on a socket that only our own user can use.

    Replaces the socket of a host that was killed. The lock of the data directory guarantees that no other host runs.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        try:
            listener.listen(128)
            yield listener
        finally:
            path.unlink(missing_ok=True)


async def serve(app: HostApp, listener: socket.socket, *, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    config = uvicorn.Config(
        app.asgi,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=STOP_GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    server = HttpServer(config)
    async with race(server.serve(sockets=[listener]), stop.wait()) as (serving, _):
        server.should_exit = True
        await serving
