"""The internal port for sandbox pods: they download skill archives by digest.

It needs no credential: only a client that knows the content of an archive knows its SHA-256, archives cannot be listed,
and a NetworkPolicy limits who can reach the port.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from moorage_api.errors import NotFoundError, UnavailableError
from moorage_api.objects.keys import skill_archive_key
from moorage_api.objects.store import BlobStore
from moorage_api.skills.bundles.archive import digest_in_pin


def create_pod_app(blobs: BlobStore) -> Starlette:
    async def archive(request: Request) -> Response:
        digest = digest_in_pin(request.path_params["digest"])
        if digest is None:
            return JSONResponse({"error": "not_found"}, 404)
        try:
            stored = await blobs.get(skill_archive_key(digest))
        except NotFoundError:
            return JSONResponse({"error": "not_found"}, 404)
        except UnavailableError:
            return JSONResponse({"error": "unavailable"}, 503)
        headers = {"Content-Length": str(stored.size)}
        return StreamingResponse(stored.chunks, media_type="application/gzip", headers=headers)

    return Starlette(routes=[Route("/internal/skills/{digest}", archive, methods=["GET"])])
