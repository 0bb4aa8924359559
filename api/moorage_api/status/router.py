"""HTTP endpoints of the status module. Reads are public; storing bytes or using another bucket needs an admin."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from minio.helpers import check_bucket_name
from pydantic import AfterValidator

from moorage_api.errors import NotFoundError
from moorage_api.files.multipart import FORM_SCHEMA, check_declared_size, form_file
from moorage_api.files.names import media_type_of, safe_filename
from moorage_api.files.service import FileService, limit_chunks
from moorage_api.http.envelope import Envelope, ok
from moorage_api.http.errors import envelope_response
from moorage_api.http.provided import provide
from moorage_api.status import minio
from moorage_api.status.schemas import HealthStatus, MinioStatus, UploadedObject
from moorage_api.status.service import PlatformStatus
from moorage_api.text import StorableText
from moorage_api.users.callers import Access, ConfigWriter, Credentials, Users, config_writer

router = APIRouter(prefix="/status", tags=["status"])

Status = Annotated[PlatformStatus, Depends(provide(PlatformStatus))]
Own = Annotated[minio.OwnStore, Depends(provide(minio.OwnStore))]
Files = Annotated[FileService, Depends(provide(FileService))]


def check_bucket(name: str | None) -> str | None:
    """Check S3's rules for bucket names that the pattern does not cover. Raises ValueError."""
    if name is not None:
        check_bucket_name(name, True)
    return name


Bucket = Annotated[
    str | None,
    AfterValidator(check_bucket),
    Query(
        min_length=3,
        max_length=63,
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$",
        description="A bucket other than the platform's own; admins only",
    ),
]


@router.get("")
async def get_status(platform: Status) -> Envelope[list[HealthStatus]]:
    """Get the state of each server that the platform needs. `code` is 503 if one fails; the HTTP status stays 200."""
    statuses = await platform.run_probes()
    failing = [status.service for status in statuses if status.status == "error"]
    if failing:
        return Envelope(code=503, msg=f"not working: {', '.join(failing)}", data=statuses)
    return ok(statuses)


@router.get("/minio", response_model=Envelope[MinioStatus])
async def get_minio_status(
    own: Own,
    access: Access,
    credentials: Credentials,
    users: Users,
    smoke: Annotated[bool, Query(description="Also store, read and remove a test object; admins only")] = False,
    bucket: Bucket = None,
) -> Envelope[MinioStatus]:
    """Check whether the object store answers. `code` is 503 if it does not; the HTTP status stays 200."""
    if smoke or bucket not in (None, own.blobs.bucket):
        await config_writer(access, credentials, users)
    store = own.blobs.in_bucket(bucket or own.blobs.bucket)
    status = await (minio.smoke_test if smoke else minio.ping)(store, own.place)
    if not status.reachable or (status.error and status.error != minio.MISSING_BUCKET):
        return Envelope(code=503, msg="The object store does not work; see `error`", data=status)
    return ok(status)


@router.post(
    "/minio/upload",
    dependencies=[ConfigWriter],
    openapi_extra=FORM_SCHEMA,
    response_model=Envelope[UploadedObject],
)
async def upload_to_minio(
    request: Request,
    own: Own,
    files: Files,
    bucket: Bucket = None,
    object_name: Annotated[
        StorableText | None,
        Query(max_length=minio.MAX_KEY_BYTES, description="Full name of the object; generated if omitted"),
    ] = None,
    prefix: Annotated[StorableText, Query(max_length=512, description="Prefix of a generated name")] = "uploads",
    presign: Annotated[bool, Query(description="Return a signed link to the object")] = True,
    expiry_seconds: Annotated[int, Query(ge=1, le=604_800, description="Seconds until the link expires")] = 3600,
) -> Envelope[UploadedObject] | JSONResponse:
    """Upload a file to test the object store. If the bucket is missing, `code` is 400 and the HTTP status is 200."""
    check_declared_size(request.headers.get("content-length", ""), limit_bytes=files.limit_bytes)
    form = await form_file(request.headers.get("content-type", ""), request.stream(), name="file")
    filename = safe_filename(form.filename)
    content_type = media_type_of(filename, form.content_type)
    store = own.blobs.in_bucket(bucket or own.blobs.bucket)
    in_own = store.bucket == own.blobs.bucket
    key = minio.object_key(object_name, prefix=prefix, filename=filename, in_own_bucket=in_own)
    if not await store.has_bucket():
        return missing_bucket()
    try:
        uploaded = await store.upload(
            key, limit_chunks(form.chunks, limit_bytes=files.limit_bytes), content_type=content_type
        )
    except NotFoundError:  # the bucket was removed after the check
        return missing_bucket()
    return ok(
        UploadedObject(
            bucket=store.bucket,
            object=key,
            etag=uploaded.etag,
            version_id=uploaded.version_id,
            filename=filename,
            content_type=content_type,
            size=uploaded.size,
            presigned_get_url=await store.presigned_url(key, seconds=expiry_seconds) if presign else None,
        )
    )


def missing_bucket() -> JSONResponse:
    """Source: shared contract, "POST /api/status/minio/upload"."""
    response = envelope_response(400, minio.MISSING_BUCKET, {"error": minio.MISSING_BUCKET})
    response.status_code = 200
    return response
