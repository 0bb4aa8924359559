"""Response bodies of the status module."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class HealthStatus(BaseModel):
    service: str
    status: Literal["ok", "error"]
    details: str


class MinioStatus(BaseModel):
    """Result of the ping and, with `smoke`, of storing, reading and removing a test object.

    `error` gives the reason if `ok` is false.
    """

    model_config = ConfigDict(extra="forbid")

    ok: bool
    reachable: bool
    endpoint: str
    secure: bool
    bucket: str
    bucket_exists: bool
    object: str | None = None
    uploaded_bytes: int | None = None
    downloaded_bytes: int | None = None
    match: bool | None = None
    error: str | None = None

    @model_serializer(mode="wrap")
    def _omit_none(self, inner: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in inner(self).items() if value is not None}


class UploadedObject(BaseModel):
    """An uploaded object. `version_id` is null if the bucket keeps no versions.

    `presigned_get_url` is absent without `presign`.
    """

    bucket: str
    object: str
    etag: str
    version_id: str | None
    filename: str
    content_type: str
    size: int
    presigned_get_url: str | None = None

    @model_serializer(mode="wrap")
    def _omit_missing_link(self, inner: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = inner(self)
        if self.presigned_get_url is None:
            del fields["presigned_get_url"]
        return fields
