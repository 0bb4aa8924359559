"""The status module: the state of each part, and a test of the object store."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from contract.server import HANG_SECONDS, Caller, name
from contract.spec import proves

MINIO = "/api/status/minio"
UPLOAD = "/api/status/minio/upload"
UPLOADED = {"bucket", "object", "etag", "version_id", "filename", "content_type", "size"}


def upload(caller: Caller, expect: int = 200, **params: object) -> Any:
    files = {"file": ("probe.txt", b"probe", "text/plain")}
    return caller.ask("POST", UPLOAD, files=files, params=params, expect=expect)


@proves("GET /api/status: success")
def test_every_part_reports_its_status(nobody: Caller) -> None:
    answer = nobody.ask("GET", "/api/status")
    assert all(set(part) >= {"service", "status", "details"} for part in answer.data)
    assert {part["status"] for part in answer.data} <= {"ok", "error"}
    assert answer.code == (503 if any(part["status"] == "error" for part in answer.data) else 200)
    services = " ".join(part["service"] for part in answer.data).lower()
    for part in ("postgres", "redis", "minio"):
        assert part in services


@proves(f"GET {MINIO}: success")
def test_the_object_store_is_pinged(nobody: Caller) -> None:
    ping = nobody.get(MINIO)
    assert set(ping) >= {"ok", "reachable", "endpoint", "secure", "bucket", "bucket_exists"}
    assert (ping["ok"], ping["reachable"], ping["bucket_exists"]) == (True, True, True)


@proves(f"GET {MINIO}: smoke")
def test_the_object_store_passes_its_smoke_test(admin: Caller) -> None:
    tried = admin.get(MINIO, params={"smoke": "true"})
    assert (tried["ok"], tried["match"], tried["bucket_exists"]) == (True, True, True)
    assert tried["uploaded_bytes"] == tried["downloaded_bytes"] > 0
    assert tried["object"]


@proves(f"GET {MINIO}: missing-bucket")
@pytest.mark.parametrize("smoke", ["false", "true"])
def test_a_missing_bucket_is_reported(admin: Caller, smoke: str) -> None:
    answer = admin.ask("GET", MINIO, params={"bucket": name(), "smoke": smoke})
    assert (answer.data["ok"], answer.data["bucket_exists"], answer.data["error"]) == (
        False,
        False,
        "bucket_not_exists",
    )


@pytest.mark.profile("safe")
@proves(f"GET {MINIO}: 403")
def test_only_admins_can_use_other_buckets(alice: Caller) -> None:
    alice.ask("GET", MINIO, params={"bucket": name()}, expect=403)


@proves(f"POST {UPLOAD}: success")
def test_an_upload_can_be_fetched_by_its_link(admin: Caller) -> None:
    stored = upload(admin).data
    assert set(stored) >= UPLOADED
    assert (stored["filename"], stored["content_type"], stored["size"]) == ("probe.txt", "text/plain", 5)
    assert stored["object"].startswith("uploads/")
    assert stored["object"].endswith("-probe.txt")
    assert httpx.get(stored["presigned_get_url"], timeout=HANG_SECONDS).content == b"probe"
    named = upload(admin, object_name=f"contract/{name()}.txt", expiry_seconds=604800).data
    assert named["object"].startswith("contract/")


@proves(f"POST {UPLOAD}: unsigned")
def test_without_presign_there_is_no_link(admin: Caller) -> None:
    assert "presigned_get_url" not in upload(admin, presign="false", prefix="elsewhere").data


@proves(f"POST {UPLOAD}: missing-bucket")
def test_an_upload_to_a_missing_bucket_is_reported(admin: Caller) -> None:
    answer = upload(admin, bucket=name())
    assert (answer.code, answer.msg) == (400, "bucket_not_exists")


@proves(f"POST {UPLOAD}: 422", "status.minio-names")
@pytest.mark.parametrize(
    "query",
    [
        {"expiry_seconds": 0},
        {"expiry_seconds": 604801},
        {"object_name": "../x"},
        {"object_name": "/x"},
        {"prefix": "a/../b"},
    ],
    ids=str,
)
def test_an_upload_with_invalid_parameters_is_refused(admin: Caller, query: dict[str, Any]) -> None:
    files = {"file": ("probe.txt", b"probe", "text/plain")}
    response = admin.send("POST", UPLOAD, files=files, params=query)
    assert response.status_code in ((422,) if "expiry_seconds" in query else (400, 422))
