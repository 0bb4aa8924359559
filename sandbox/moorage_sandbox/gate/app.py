"""The HTTP application of the gate. Every route except the health checks verifies a token first."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
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
from moorage_sandbox.gate.errors import BOX_UNAVAILABLE, INVALID_ANSWER, RefusalError
from moorage_sandbox.gate.ledger import CallLedger
from moorage_sandbox.gate.tokens import Grant, TrustStore, verify_token
from moorage_sandbox.gate.vnc_proxy import proxy
from moorage_sandbox.messages import BindResponse, CallRequest, ErrorResponse, FileWritten, ShellView, SkillDigests
from moorage_sandbox.protocol import (
    DIGEST_PATTERN,
    MAX_CALL_BODY_BYTES,
    MAX_CALL_KEY_CHARS,
    MAX_PATH_CHARS,
    MAX_SKILL_ARCHIVE_BYTES,
    MAX_TRANSFER_BYTES,
    Scope,
    is_skill_id,
)

FENCED_SCOPES = frozenset({Scope.BIND, Scope.CALL, Scope.FILE_WRITE, Scope.SKILLS})
"""Only the newest runner may use these. Reading needs no lease."""


class GateApp:
    """The routes and the objects that they share. `asgi` is the application."""

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
                RefusalError: render_refusal,
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
        grant = self._verify_token(request, Scope.BIND)
        await self._ledger.bind(grant.session_id, grant.epoch)
        return json_response(BindResponse(session_id=grant.session_id, box_boot_id=await self._box.boot_id()))

    async def call(self, request: Request) -> Response:
        await self._authorize(request, Scope.CALL)
        key = request.path_params["key"]
        if len(key) > MAX_CALL_KEY_CHARS:
            raise RefusalError("invalid", f"The key of a call may have at most {MAX_CALL_KEY_CHARS} characters")
        try:
            call = CallRequest.model_validate_json(await read_body(request, MAX_CALL_BODY_BYTES))
        except ValidationError as error:
            raise RefusalError("invalid", f"The call is not valid: {error.errors()[0]['msg']}") from error
        return json_response(await self._calls.run(key, call))

    async def view_shell(self, request: Request) -> Response:
        await self._authorize(request, Scope.SHELL_READ)
        reply = await self._box.ask({"op": "shell_view", "name": request.path_params["name"]})
        raise_refusal(reply)
        return json_response(ShellView.model_validate(reply.get("result")))

    async def read_file(self, request: Request) -> Response:
        await self._authorize(request, Scope.FILE_READ)
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(self._box.connect())
            await send(connection, {"op": "file_read", "path": path_of(request)})
            found = await receive(connection)
            raise_refusal(found)
            size = size_of(found)
            rest = stack.pop_all()  # from here on the streaming response closes the connection
        return StreamingResponse(
            file_chunks(connection, rest, size),
            media_type="application/octet-stream",
            headers={"Content-Length": str(size)},
        )

    async def write_file(self, request: Request) -> Response:
        await self._authorize(request, Scope.FILE_WRITE)
        path = path_of(request)
        size = length_of(request, MAX_TRANSFER_BYTES)
        written = await self._forward_body(request, {"op": "file_write", "path": path, "size": size})
        return json_response(FileWritten(path=path, size=size_of(written)))

    async def skill_digests(self, request: Request) -> Response:
        await self._authorize(request, Scope.SKILLS)
        reply = await self._box.ask({"op": "skill_list"})
        raise_refusal(reply)
        digests = reply.get("digests")
        if not isinstance(digests, dict):
            raise RefusalError("internal", INVALID_ANSWER)
        found = {
            skill_id: digest
            for skill_id, digest in digests.items()
            if is_skill_id(skill_id) and isinstance(digest, str) and re.fullmatch(DIGEST_PATTERN, digest)
        }
        return json_response(SkillDigests(digests=found))

    async def put_skill(self, request: Request) -> Response:
        await self._authorize(request, Scope.SKILLS)
        skill_id, digest = request.path_params["skill_id"], request.query_params.get("digest", "")
        if not is_skill_id(skill_id) or not re.fullmatch(DIGEST_PATTERN, digest):
            raise RefusalError("invalid", "The id is not a skill's id, or `digest` is not the SHA-256 of the archive")
        size = length_of(request, MAX_SKILL_ARCHIVE_BYTES)
        question = {"op": "skill_write", "id": skill_id, "digest": digest, "size": size}
        await self._forward_body(request, question)
        return json_response(SkillDigests(digests={skill_id: digest}))

    async def _forward_body(self, request: Request, question: dict[str, object]) -> dict[str, object]:
        """Send `question` and then the request's body to the box. Returns its answer, or raises its refusal."""
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
            await self._authorize(socket, Scope.VNC)
            await proxy(socket, self._rfb_socket)
        except RefusalError as error:
            await socket.send_denial_response(refusal_response(error))

    def _verify_token(self, request: HTTPConnection, scope: Scope) -> Grant:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise RefusalError("unauthorized", "The request has no bearer token")
        grant = verify_token(token.strip(), trust=self._trust, sandbox_uid=self._sandbox_uid)
        if scope not in grant.scopes:
            raise RefusalError("forbidden", f"This token does not have the scope {scope}")
        return grant

    async def _authorize(self, request: HTTPConnection, scope: Scope) -> None:
        """Raise RefusalError unless a valid token allows `scope` for the session that this sandbox is bound to."""
        grant = self._verify_token(request, scope)
        if scope in FENCED_SCOPES and grant.epoch == 0:
            raise RefusalError("stale_epoch", "Only a runner that holds the session's lease may do this")
        await self._ledger.check(grant.session_id, grant.epoch if scope in FENCED_SCOPES else 0)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            raise RefusalError("too_large", f"The body of a call may have at most {limit_bytes} bytes")
        parts.append(chunk)
    return b"".join(parts)


async def file_chunks(connection: BoxConnection, rest: AsyncExitStack, size: int) -> AsyncIterator[bytes]:
    """Yield exactly `size` bytes, or raise. The response then ends early, and the client sees that it is too short."""
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
        raise RefusalError("length_required", "The request must have a Content-Length")
    if int(length) > limit_bytes:
        raise RefusalError("too_large", f"The body has {length} bytes; at most {limit_bytes // 2**20} MiB are allowed")
    return int(length)


def path_of(request: Request) -> str:
    path = request.query_params.get("path", "")
    if not path or len(path) > MAX_PATH_CHARS or "\0" in path:
        raise RefusalError("invalid", f"`path` must be the path of a file, with at most {MAX_PATH_CHARS} characters")
    return path


def size_of(found: dict[str, object]) -> int:
    size = found.get("size")
    if type(size) is not int or size < 0:
        raise RefusalError("internal", INVALID_ANSWER)
    return size


def json_response(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


def refusal_response(error: RefusalError) -> JSONResponse:
    body = ErrorResponse(error=error.code, message=str(error))
    return JSONResponse(body.model_dump(), status_code=error.status)


async def render_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusalError)
    return refusal_response(error)


async def render_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "invalid"}.get(error.status_code, "invalid")
    return JSONResponse({"error": code, "message": str(error.detail)}, status_code=error.status_code)


async def render_box_gone(_: Request, __: Exception) -> Response:
    return refusal_response(RefusalError("box_unavailable", BOX_UNAVAILABLE))


async def render_disconnect(_: Request, __: Exception) -> Response:
    return refusal_response(RefusalError("invalid", "The upload ended before all of its bytes had arrived"))


async def render_unexpected(_: Request, __: Exception) -> Response:
    return refusal_response(
        RefusalError("internal", "An unexpected error happened in the gate; its log has the details")
    )
