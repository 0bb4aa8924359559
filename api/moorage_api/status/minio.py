"""What an admin tries the object store with: ping, a test object, an upload by hand."""

from __future__ import annotations

import os
from uuid import uuid4

from moorage_api.errors import DomainError, InvalidError
from moorage_api.objects.store import BlobStore
from moorage_api.settings import Settings
from moorage_api.status.schemas import MinioStatus

MISSING_BUCKET = "bucket_not_exists"
SMOKE_BYTES = 64 * 1024
OWN_PREFIXES = ("files/", "sessions/", "skills/")
"""Of the platform's own bucket: what is there has a row somewhere, and is nobody's to overwrite."""
MAX_KEY_BYTES = 1000
"""S3 takes 1024; some servers count what they put before it."""


async def ping(store: BlobStore, settings: Settings) -> MinioStatus:
    """Whether the store answers and has the bucket. An unreachable store is an answer, too."""
    status = MinioStatus(
        ok=False,
        reachable=False,
        endpoint=settings.s3_endpoint,
        secure=settings.s3_secure,
        bucket=store.bucket,
        bucket_exists=False,
    )
    try:
        status.bucket_exists = await store.has_bucket()
    except DomainError:
        status.error = "unreachable"
        return status
    status.reachable = True
    status.ok = status.bucket_exists
    status.error = None if status.bucket_exists else MISSING_BUCKET
    return status


async def smoke_test(store: BlobStore, settings: Settings) -> MinioStatus:
    """Put an object, read it, compare, remove it."""
    status = await ping(store, settings)
    if not status.ok:
        return status
    sent = os.urandom(SMOKE_BYTES)
    status.object = f"smoke/{uuid4()}"
    status.ok = status.match = False
    status.uploaded_bytes = status.downloaded_bytes = 0
    try:
        await store.put(status.object, sent, content_type="application/octet-stream")
        status.uploaded_bytes = len(sent)
        stored = await store.get(status.object)
        received = b"".join([chunk async for chunk in stored.chunks])
        status.downloaded_bytes = len(received)
        await store.delete(status.object)
    except DomainError as error:
        status.error = error.code
        return status
    status.ok = status.match = received == sent
    status.error = None if status.ok else "mismatch"
    return status


def object_key(name: str | None, *, prefix: str, filename: str, in_own_bucket: bool) -> str:
    """The key of an upload by hand. Raises InvalidError for one that leaves its place or takes another's."""
    key = name if name else f"{prefix.strip('/')}/{uuid4()}-{filename}".lstrip("/")
    if key.startswith("/") or "\\" in key or any(part.strip() in ("", ".", "..") for part in key.split("/")):
        raise InvalidError("An object's name has no leading slash and no blank, `.` or `..` part")
    if any(ord(character) < 32 for character in key) or len(key.encode(errors="replace")) > MAX_KEY_BYTES:
        raise InvalidError(f"An object's name has at most {MAX_KEY_BYTES} bytes and no control characters")
    if in_own_bucket and key.startswith(OWN_PREFIXES):
        raise InvalidError("This part of the bucket is the platform's own")
    return key
