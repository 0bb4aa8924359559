"""Tests of the object store: ping, self-test with an object, and the key of a test upload."""

from __future__ import annotations

import os
from dataclasses import dataclass
from uuid import uuid4

from moorage_api.errors import DomainError, InvalidError
from moorage_api.objects.keys import OWN_PREFIXES
from moorage_api.objects.store import BlobStore
from moorage_api.status.schemas import MinioStatus

MISSING_BUCKET = "bucket_not_exists"
SMOKE_BYTES = 64 * 1024
MAX_KEY_BYTES = 1000
"""S3 allows 1024 bytes, but some servers add a prefix of their own."""


@dataclass(frozen=True)
class StorePlace:
    """`endpoint` is host:port."""

    endpoint: str
    secure: bool


@dataclass(frozen=True)
class OwnStore:
    """The platform's object store, on its own bucket."""

    blobs: BlobStore
    place: StorePlace


async def ping(store: BlobStore, place: StorePlace) -> MinioStatus:
    """Check whether the store answers and has the bucket. An unreachable store is a result, not an exception."""
    status = MinioStatus(
        ok=False,
        reachable=False,
        endpoint=place.endpoint,
        secure=place.secure,
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


async def smoke_test(store: BlobStore, place: StorePlace) -> MinioStatus:
    """Store a random object, read it, compare it and remove it."""
    status = await ping(store, place)
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
    """Build the key of a test upload. Raises InvalidError for a path with `..` and for the platform's own prefixes."""
    key = name if name else f"{prefix.strip('/')}/{uuid4()}-{filename}".lstrip("/")
    if key.startswith("/") or "\\" in key or any(part.strip() in ("", ".", "..") for part in key.split("/")):
        raise InvalidError("The name of an object must not begin with a slash or contain an empty, `.` or `..` part")
    if any(ord(character) < 32 for character in key) or len(key.encode(errors="replace")) > MAX_KEY_BYTES:
        raise InvalidError(f"The name of an object has at most {MAX_KEY_BYTES} bytes and no control characters")
    if in_own_bucket and key.startswith(OWN_PREFIXES):
        raise InvalidError(f"The prefixes {', '.join(OWN_PREFIXES)} are used by the platform; choose another name")
    return key
