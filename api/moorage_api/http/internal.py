"""The internal port for sandbox pods: they download skill archives by digest.

It needs no credential: only a client that knows the content of an archive knows its SHA-256, archives cannot be listed,
and a NetworkPolicy limits who can reach the port.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from moorage_api.errors import NotFoundError, UnavailableError
from moorage_api.objects.store import BlobStore

STOP_GRACE_SECONDS = 2

DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def archive_key(digest: str) -> str | None:
    """Where the archive with this digest is ("sha256:" and 64 hexadecimal digits); None for what is no digest."""
    found = DIGEST.fullmatch(digest)
    return f"skills/archives/{found[1]}.tar.gz" if found else None


def create_internal_app(blobs: BlobStore) -> Starlette:
    async def archive(request: Request) -> Response:
        key = archive_key(request.path_params["digest"])
        if key is None:
            return JSONResponse({"error": "not_found"}, 404)
        try:
            stored = await blobs.get(key)
        except NotFoundError:
            return JSONResponse({"error": "not_found"}, 404)
        except UnavailableError:
            return JSONResponse({"error": "unavailable"}, 503)
        headers = {"Content-Length": str(stored.size)}
        return StreamingResponse(stored.chunks, media_type="application/gzip", headers=headers)

    return Starlette(routes=[Route("/internal/skills/{digest}", archive, methods=["GET"])])


class InternalServer(uvicorn.Server):
    """A server that does not handle signals, because it runs beside another part of the process that does."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def served_beside(app: Starlette, *, host: str, port: int, concurrency: int) -> AsyncIterator[None]:
    """Serve `app` while the block runs. If more than `concurrency` requests run at once, further ones get 503."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        lifespan="off",
        access_log=False,
        log_config=None,
        limit_concurrency=concurrency,
        timeout_graceful_shutdown=STOP_GRACE_SECONDS,
        server_header=False,
    )
    server = InternalServer(config)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(), name="internal port")
        try:
            yield
        finally:
            server.should_exit = True
