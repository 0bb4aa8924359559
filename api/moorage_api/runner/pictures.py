"""Store pictures for models that see, within limits. No picture is decoded here: only its header is read."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from moorage_api.agent.ports import Picture, PictureError
from moorage_api.errors import DomainError
from moorage_api.objects import keys
from moorage_api.objects.store import BlobStore
from moorage_sandbox.pictures import PictureHeader, read_header

logger = logging.getLogger(__name__)

PIECE_BYTES = 64 * 1024
MAX_SIDE = 2000
"""Longest side in pixels. Some servers refuse a picture with a longer side."""


PLAIN_TYPES = frozenset({"image/png", "image/jpeg"})
"""Every server that takes pictures takes these. The sandbox converts others."""


@dataclass(frozen=True)
class PictureLimits:
    """The limits of one picture that a model gets. They are settings."""

    max_bytes: int = 1024 * 1024
    max_pixels: int = 1280 * 1024

    def allow(self, data: bytes, header: PictureHeader) -> bool:
        is_small = header.pixels <= self.max_pixels and max(header.width, header.height) <= MAX_SIDE
        return is_small and len(data) <= self.max_bytes


class PictureStore:
    """The pictures of one session in the object store. They are removed with the session."""

    def __init__(self, blobs: BlobStore, session_id: UUID, *, limits: PictureLimits) -> None:
        self._blobs = blobs
        self._session_id = session_id
        self.limits = limits

    def is_small(self, data: bytes) -> bool:
        """Whether the picture can be sent as it is. Raises PictureError if it is no picture that a model can get."""
        header = read_header(data)
        if header is None:
            raise PictureError("it is not a PNG, JPEG, GIF or WebP picture")
        return header.media_type in PLAIN_TYPES and header.is_plain and self.limits.allow(data, header)

    async def put(self, data: bytes) -> Picture:
        """Store a picture that is within the limits. Raises PictureError."""
        header = read_header(data)
        if header is None or not self.limits.allow(data, header):
            raise PictureError("it is not a picture within the limits")
        suffix = header.media_type.rpartition("/")[2]
        key = keys.session_picture_key(self._session_id, hashlib.sha256(data).hexdigest(), suffix)
        try:
            await self._blobs.put(key, data, content_type=header.media_type)
        except DomainError as error:
            raise PictureError(f"it cannot be stored: {error}") from error
        return Picture(key, header.media_type, header.width, header.height)

    async def read(self, key: str) -> str | None:
        """The picture as base64; None if `key` does not name a picture of this session, or the store cannot give it."""
        if not keys.is_session_picture_key(self._session_id, key):
            logger.warning("Session %s names an object that is not one of its pictures", self._session_id)
            return None
        data = bytearray()
        try:
            stored = await self._blobs.get(key)
            async for chunk in stored.chunks:
                data += chunk
        except DomainError as error:
            logger.warning("A picture of session %s cannot be loaded: %s", self._session_id, error)
            return None
        return base64.b64encode(data).decode()


def decode(result: Mapping[str, Any]) -> bytes:
    """The picture in the sandbox's answer. Raises PictureError."""
    try:
        return base64.b64decode(str(result.get("data") or ""), validate=True)
    except binascii.Error as error:
        raise PictureError("the sandbox sent no picture") from error


async def iterate(data: bytes) -> AsyncIterator[bytes]:
    """The data in pieces, as a body to send."""
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]
