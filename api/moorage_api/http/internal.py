"""What sandbox pods may ask of the api, on a port of its own: the archives of skills, by digest, read-only.

It asks for no credential: whoever knows a SHA-256 of an archive knows what is in it, nothing can be listed, and a
NetworkPolicy says who reaches the port.
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
    """Leaves signals to whoever it runs beside."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def served_beside(app: Starlette, *, host: str, port: int, concurrency: int) -> AsyncIterator[None]:
    """Serve `app` until the block ends. More than `concurrency` requests at once are answered 503."""
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
