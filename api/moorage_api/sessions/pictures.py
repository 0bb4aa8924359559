"""Serve screenshots through signed links, because an <img> sends no Authorization header."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import StreamingResponse

from moorage_api.http.provided import provide
from moorage_api.sessions.presenter import Pictures

router = APIRouter(prefix="/pictures", tags=["sessions"])


@router.get("/{name}", response_class=StreamingResponse)
async def get_picture(
    name: Annotated[str, Path(max_length=2000, pattern=r"^[A-Za-z0-9_-]+$", description="As in the link")],
    expires: Annotated[int, Query(ge=0, le=2**40, description="Time at which the link expires, in seconds since 1970")],
    signature: Annotated[
        str, Query(max_length=64, pattern=r"^[0-9a-f]+$", description="Signature of `name` and `expires`")
    ],
    pictures: Annotated[Pictures, Depends(provide(Pictures))],
) -> StreamingResponse:
    """Get a picture that an event links to. The link's signature grants access and expires after an hour."""
    picture = await pictures.open(name, expires=expires, signature=signature)
    headers = {
        "Cache-Control": "private, max-age=3600",
        "Content-Length": str(picture.size),
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(picture.chunks, media_type="image/png", headers=headers)
