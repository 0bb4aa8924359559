"""HTTP endpoints of the file module."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import StreamingResponse

from moorage_api.events.schemas import FileInfo
from moorage_api.files.multipart import FORM_SCHEMA, check_declared_size, form_file
from moorage_api.files.names import content_disposition
from moorage_api.files.service import FileService
from moorage_api.http.envelope import Envelope, ok
from moorage_api.http.provided import provide
from moorage_api.users.callers import CurrentUser

router = APIRouter(prefix="/files", tags=["files"])

Files = Annotated[FileService, Depends(provide(FileService))]
FileId = Annotated[UUID, Path(description="Id from POST /api/files")]


@router.post("", openapi_extra=FORM_SCHEMA)
async def upload_file(request: Request, user: CurrentUser, files: Files) -> Envelope[FileInfo]:
    """Upload a file of at most 100 MiB in the form field `file`. An incomplete upload stores nothing."""
    check_declared_size(request.headers.get("content-length", ""), limit_bytes=files.limit_bytes)
    form = await form_file(request.headers.get("content-type", ""), request.stream(), name="file")
    return ok(await files.upload(form.chunks, owner_id=user.id, filename=form.filename, content_type=form.content_type))


@router.get("/{file_id}")
async def get_file(file_id: FileId, user: CurrentUser, files: Files) -> Envelope[FileInfo]:
    """Get the metadata of a file."""
    return ok(await files.get(file_id, reader=user))


@router.get("/{file_id}/download", response_class=StreamingResponse)
async def download_file(file_id: FileId, user: CurrentUser, files: Files) -> StreamingResponse:
    """Download a file. It is always an attachment, because a browser must not run what an agent wrote."""
    info = await files.get(file_id, reader=user)
    stored = await files.open(info.key)
    headers = {
        "Content-Disposition": content_disposition(info.filename),
        "Content-Length": str(stored.size),
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(stored.chunks, media_type=info.mime_type, headers=headers)


@router.delete("/{file_id}")
async def delete_file(file_id: FileId, user: CurrentUser, files: Files) -> Envelope[None]:
    """Delete a file permanently. Messages that it was attached to still show its name."""
    await files.delete(file_id, reader=user)
    return ok()
