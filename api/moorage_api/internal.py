"""What sandbox pods may ask of the api, on a port of its own: the archives of skills, by digest, read-only.

It asks for no credential: whoever knows a SHA-256 of an archive knows what is in it, nothing can be listed, and a
NetworkPolicy says who reaches the port.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from moorage_api.errors import NotFoundError, UnavailableError
from moorage_api.objects.store import BlobStore

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
    """Leaves signals to the server of the public port, with which it ends."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
