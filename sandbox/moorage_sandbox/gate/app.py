"""The gate's HTTP: every route but health checks a token first."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from moorage_sandbox.gate.box_client import (
    CHUNK_BYTES,
    BoxClient,
    BoxConnection,
    BoxGoneError,
    raise_refusal,
    receive,
    send,
)
from moorage_sandbox.gate.calls import Calls
from moorage_sandbox.gate.errors import RefusedError
from moorage_sandbox.gate.ledger import CallLedger
from moorage_sandbox.gate.tokens import Grant, TrustStore, verify
from moorage_sandbox.gate.vnc_proxy import proxy
from moorage_sandbox.messages import BindResponse, CallRequest, ErrorResponse, FileWritten, ShellView, SkillDigests
from moorage_sandbox.protocol import (
    DIGEST_PATTERN,
    MAX_CALL_BODY_BYTES,
    MAX_FILE_BYTES,
    MAX_SKILL_ARCHIVE_BYTES,
    MAX_SKILL_ID_CHARS,
    SKILL_ID_PATTERN,
    Scope,
)

Endpoint = Callable[[Request], Awaitable[Response]]

FENCED_SCOPES = frozenset({Scope.BIND, Scope.CALL, Scope.FILE_WRITE, Scope.SKILLS})
"""What only the newest runner may do; looking is free of the lease."""


class GateApp:
    """Holds what the routes share. `asgi` is the application."""

    def __init__(
        self, *, box: BoxClient, calls: Calls, ledger: CallLedger, trust: TrustStore, rfb_socket: Path, sandbox_uid: str
    ) -> None:
        self._box = box
        self._calls = calls
        self._ledger = ledger
        self._trust = trust
        self._rfb_socket = rfb_socket
        self._sandbox_uid = sandbox_uid
        self.asgi = Starlette(
            routes=[
                Route("/healthz", self.healthz),
                Route("/readyz", self.readyz),
                Route("/v1/bind", self.bind, methods=["POST"]),
                Route("/v1/calls/{key}", self.call, methods=["POST"]),
                Route("/v1/files", self.read_file, methods=["GET"]),
                Route("/v1/files", self.write_file, methods=["PUT"]),
                Route("/v1/shells/{name:path}", self.view_shell),
                Route("/v1/skills", self.skill_digests, methods=["GET"]),
                Route("/v1/skills/{skill_id}", self.put_skill, methods=["PUT"]),
                WebSocketRoute("/v1/vnc", self.vnc),
            ],
            exception_handlers={
                RefusedError: render_refusal,
                HTTPException: render_http_exception,
                BoxGoneError: render_box_gone,
                ClientDisconnect: render_disconnect,
                Exception: render_unexpected,
            },
        )

    async def healthz(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        await self._box.boot_id()
        return JSONResponse({"status": "ok"})

    async def bind(self, request: Request) -> Response:
        grant = self._verified(request, Scope.BIND)
        await self._ledger.bind(grant.session_id, grant.epoch)
        return answer(BindResponse(session_id=grant.session_id, box_boot_id=await self._box.boot_id()))

    async def call(self, request: Request) -> Response:
        await self._authorized(request, Scope.CALL)
        key = request.path_params["key"]
        if len(key) > 100:
            raise RefusedError("invalid", "A call's key has at most 100 characters")
        try:
            call = CallRequest.model_validate_json(await bounded_body(request, MAX_CALL_BODY_BYTES))
        except ValidationError as error:
            raise RefusedError("invalid", f"The call is not valid: {error.errors()[0]['msg']}") from error
        return answer(await self._calls.run(key, call))

    async def view_shell(self, request: Request) -> Response:
        await self._authorized(request, Scope.SHELL_READ)
        shown = await self._box.ask({"op": "shell_view", "name": request.path_params["name"]})
        raise_refusal(shown)
        return answer(ShellView.model_validate(shown.get("result")))

    async def read_file(self, request: Request) -> Response:
        await self._authorized(request, Scope.FILE_READ)
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(self._box.connect())
            await send(connection, {"op": "file_read", "path": path_of(request)})
            found = await receive(connection)
            raise_refusal(found)
            size = size_of(found)
            rest = stack.pop_all()  # from here on the connection is closed by whoever streams
        return StreamingResponse(
            file_chunks(connection, rest, size),
            media_type="application/octet-stream",
            headers={"Content-Length": str(size)},
        )

    async def write_file(self, request: Request) -> Response:
        await self._authorized(request, Scope.FILE_WRITE)
        path = path_of(request)
        size = length_of(request, MAX_FILE_BYTES)
        written = await self._send_body(request, {"op": "file_write", "path": path, "size": size})
        return answer(FileWritten(path=path, size=size_of(written)))

    async def skill_digests(self, request: Request) -> Response:
        await self._authorized(request, Scope.SKILLS)
        there = await self._box.ask({"op": "skill_list"})
        raise_refusal(there)
        digests = there.get("digests")
        if not isinstance(digests, dict):
            raise RefusedError("internal", "The sandbox answered something unreadable")
        found = {
            skill_id: digest
            for skill_id, digest in digests.items()
            if is_skill_id(skill_id) and isinstance(digest, str) and re.fullmatch(DIGEST_PATTERN, digest)
        }
        return answer(SkillDigests(digests=found))

    async def put_skill(self, request: Request) -> Response:
        await self._authorized(request, Scope.SKILLS)
        skill_id, digest = request.path_params["skill_id"], request.query_params.get("digest", "")
        if not is_skill_id(skill_id) or not re.fullmatch(DIGEST_PATTERN, digest):
            raise RefusedError("invalid", "A skill is put by its id, with `digest`, the SHA-256 of its archive")
        size = length_of(request, MAX_SKILL_ARCHIVE_BYTES)
        question = {"op": "skill_write", "id": skill_id, "digest": digest, "size": size}
        await self._send_body(request, question)
        return answer(SkillDigests(digests={skill_id: digest}))

    async def _send_body(self, request: Request, question: dict[str, object]) -> dict[str, object]:
        """Stream the request's body to the box behind `question`; what it answers, unless that is a refusal."""
        async with self._box.connect() as connection:
            await send(connection, question)
            async for chunk in request.stream():
                try:
                    connection.writer.write(chunk)
                    await connection.writer.drain()
                except OSError as error:
                    raise BoxGoneError from error
            written = await receive(connection)
            raise_refusal(written)
        return written

    async def vnc(self, socket: WebSocket) -> None:
        try:
            await self._authorized(socket, Scope.VNC)
            await proxy(socket, self._rfb_socket)
        except RefusedError as error:
            await socket.send_denial_response(refusal(error))

    def _verified(self, request: HTTPConnection, scope: Scope) -> Grant:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise RefusedError("unauthorized", "A token is needed")
        grant = verify(token.strip(), trust=self._trust, sandbox_uid=self._sandbox_uid)
        if scope not in grant.scopes:
            raise RefusedError("forbidden", f"This token does not allow {scope}")
        return grant

    async def _authorized(self, request: HTTPConnection, scope: Scope) -> None:
        """Raises RefusedError unless a valid token allows `scope` for the session this sandbox is bound to."""
        grant = self._verified(request, scope)
        if scope in FENCED_SCOPES and grant.epoch == 0:
            raise RefusedError("stale_epoch", "Only a runner with a lease may do this")
        await self._ledger.check(grant.session_id, grant.epoch if scope in FENCED_SCOPES else 0)


async def bounded_body(request: Request, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            raise RefusedError("too_large", f"A call has at most {limit_bytes} bytes")
        parts.append(chunk)
    return b"".join(parts)


async def file_chunks(connection: BoxConnection, rest: AsyncExitStack, size: int) -> AsyncIterator[bytes]:
    """Exactly `size` bytes, or an error that cuts the response off: a client then sees that it is short."""
    async with rest:
        remaining = size
        while remaining:
            chunk = await connection.reader.read(min(CHUNK_BYTES, remaining))
            if not chunk:
                raise BoxGoneError
            remaining -= len(chunk)
            yield chunk


def length_of(request: Request, limit_bytes: int) -> int:
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        raise RefusedError("length_required", "A file is sent with its Content-Length")
    if int(length) > limit_bytes:
        raise RefusedError("too_large", f"It has at most {limit_bytes // 2**20} MiB")
    return int(length)


def is_skill_id(text: object) -> bool:
    return isinstance(text, str) and len(text) <= MAX_SKILL_ID_CHARS and bool(re.fullmatch(SKILL_ID_PATTERN, text))


def path_of(request: Request) -> str:
    path = request.query_params.get("path", "")
    if not path or len(path) > 4096 or "\0" in path:
        raise RefusedError("invalid", "`path` names a file with at most 4096 characters")
    return path


def size_of(found: dict[str, object]) -> int:
    size = found.get("size")
    if type(size) is not int or size < 0:
        raise RefusedError("internal", "The sandbox answered something unreadable")
    return size


def answer(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


def refusal(error: RefusedError) -> JSONResponse:
    body = ErrorResponse(error=error.code, message=str(error))
    return JSONResponse(body.model_dump(), status_code=error.status)


async def render_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return refusal(error)


async def render_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "invalid"}.get(error.status_code, "invalid")
    return JSONResponse({"error": code, "message": str(error.detail)}, status_code=error.status_code)


async def render_box_gone(_: Request, __: Exception) -> Response:
    return refusal(RefusedError("box_unavailable", "The sandbox is starting or was restarted, try again"))


async def render_disconnect(_: Request, __: Exception) -> Response:
    return refusal(RefusedError("invalid", "The upload was cut off"))


async def render_unexpected(_: Request, __: Exception) -> Response:
    return refusal(RefusedError("internal", "Something went wrong in the gate"))
