"""The status endpoints, and the admin's tests of the object store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from moorage_api.wiring.resources import blobs_of
from support.accounts import PASSWORD, Person, client_for, data
from support.processes import Platform, shared_platform
from support.services import BUCKET, Services, run

CONTENT = "内容 content".encode()


@pytest.fixture(scope="module")
def api_without_servers(services: Services) -> Iterator[str]:
    """The URL of an api with MOORAGE_OPEN_CONFIG whose Redis and object store do not answer."""
    changes = {
        "redis_url": "redis://127.0.0.1:1/0",
        "s3_endpoint": "127.0.0.1:1",
        "open_config": True,
        "wechat_app_id": "wx0",
        "wechat_app_secret": "secret",
        "wechat_callback_url": "https://moorage.example/api/auth/wechat/callback",
        "wechat_frontend_url": "https://app.example/",
    }
    with shared_platform(services, **changes) as platform:
        yield run(platform.start_api()).url


async def test_all_services_are_ok(api: Any) -> None:
    async with client_for(api.url) as client:
        statuses = data(await client.get("/api/status"))
    assert {status["service"]: status["status"] for status in statuses} == {
        "postgres": "ok",
        "redis": "ok",
        "minio": "ok",
    }
    assert all(set(status) == {"service", "status", "details"} for status in statuses)


async def test_a_failing_service_is_named_without_its_address(api_without_servers: str) -> None:
    async with client_for(api_without_servers) as client:
        answer = await client.get("/api/status")
    body = answer.json()
    assert (answer.status_code, body["code"]) == (200, 503)
    assert {status["service"]: status["status"] for status in body["data"]} == {
        "postgres": "ok",
        "redis": "error",
        "minio": "error",
    }
    assert "127.0.0.1" not in answer.text


async def test_without_redis_limited_routes_answer_503_and_unlimited_routes_work(api_without_servers: str) -> None:
    async with client_for(api_without_servers) as client:
        for answer in (
            await client.get("/api/auth/me", headers={"Authorization": "Bearer x"}),
            await client.get("/api/app-config/llm"),
            await client.post("/api/auth/login", json={"username": "nobody", "password": PASSWORD}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, 503)
            assert answer.json()["data"] == {"error": "unavailable"}
        for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        response = await client.get("/api/auth/wechat/callback?code=x&state=" + "0" * 72)
        assert response.status_code == 302
        assert dict(parse_qsl(urlsplit(response.headers["location"]).query))["error"] == "unavailable"


async def test_the_ping_of_an_unreachable_store_reports_it(api: Any, root: Person) -> None:
    """The endpoint of `api_without_servers` needs Redis, so this calls the function behind it."""
    from moorage_api.status.minio import StorePlace, ping

    settings = api.settings.model_copy(update={"s3_endpoint": "127.0.0.1:1"})
    store = blobs_of(settings)
    status = (await ping(store, StorePlace("127.0.0.1:1", secure=False))).model_dump()
    await store.close()
    assert status == {
        "ok": False,
        "reachable": False,
        "endpoint": "127.0.0.1:1",
        "secure": False,
        "bucket": BUCKET,
        "bucket_exists": False,
        "error": "unreachable",
    }


async def test_the_ping_reports_store_and_bucket(api: Any, root: Person) -> None:
    there = {"endpoint": api.settings.s3_endpoint, "secure": False, "reachable": True}
    async with client_for(api.url) as client:
        assert data(await client.get("/api/status/minio")) == {
            **there,
            "ok": True,
            "bucket": BUCKET,
            "bucket_exists": True,
        }
    assert data(await root.client.get("/api/status/minio", params={"bucket": "no-such-bucket"})) == {
        **there,
        "ok": False,
        "bucket": "no-such-bucket",
        "bucket_exists": False,
        "error": "bucket_not_exists",
    }


async def test_the_self_test_stores_reads_and_removes_an_object(services: Services, root: Person) -> None:
    result = data(await root.client.get("/api/status/minio", params={"smoke": "true"}))
    assert (result["ok"], result["match"], result["bucket_exists"]) == (True, True, True)
    assert result["uploaded_bytes"] == result["downloaded_bytes"] > 0
    with services.s3.client() as client:
        assert list(client.list_objects(BUCKET, prefix=result["object"])) == []
    missing = data(await root.client.get("/api/status/minio", params={"smoke": "true", "bucket": "no-such-bucket"}))
    assert (missing["ok"], missing["error"]) == (False, "bucket_not_exists")


@pytest.mark.parametrize("bucket", ["ab", "Upper", "a..b", "-a-", "127.0.0.1", "a/b", "a" * 64, "\x00abc"])
async def test_an_invalid_bucket_name_is_refused(root: Person, bucket: str) -> None:
    for answer in (
        await root.client.get("/api/status/minio", params={"bucket": bucket}),
        await upload(root, bucket=bucket),
    ):
        assert answer.status_code == 422


async def upload(person: Person, **query: Any) -> httpx.Response:
    file = ("图 1.txt", CONTENT, "text/plain")
    return await person.client.post("/api/status/minio/upload", params=query, files={"file": file})


async def test_an_uploaded_object_can_be_read_by_its_signed_link_only(root: Person) -> None:
    stored = data(await upload(root))
    assert stored["object"].startswith("uploads/")
    assert stored["object"].endswith("-图 1.txt")
    assert {key: stored[key] for key in ("bucket", "version_id", "filename", "content_type", "size")} == {
        "bucket": BUCKET,
        "version_id": None,
        "filename": "图 1.txt",
        "content_type": "text/plain",
        "size": len(CONTENT),
    }
    assert stored["etag"]
    url = stored["presigned_get_url"]
    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).content == CONTENT
        assert (await client.get(url[:-1] + ("0" if url[-1] != "0" else "1"))).status_code == 403
        assert (await client.get(url.replace("X-Amz-Expires=3600", "X-Amz-Expires=36000"))).status_code == 403
    assert "presigned_get_url" not in data(await upload(root, presign="false"))


async def test_an_uploaded_object_has_the_requested_name(root: Person) -> None:
    assert data(await upload(root, object_name="here/it is.txt"))["object"] == "here/it is.txt"
    assert data(await upload(root, prefix="/other/"))["object"].startswith("other/")


async def test_a_missing_bucket_is_reported_as_the_contract_says(root: Person) -> None:
    answer = await upload(root, bucket="no-such-bucket")
    assert (answer.status_code, answer.json()["code"], answer.json()["msg"]) == (200, 400, "bucket_not_exists")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"object_name": "../x"}, 400),
        ({"object_name": "/x"}, 400),
        ({"object_name": "a//b"}, 400),
        ({"object_name": "a/./b"}, 400),
        ({"object_name": "a\\..\\b"}, 400),
        ({"object_name": "a\nb"}, 400),
        ({"object_name": "a\x00b"}, 422),
        ({"object_name": " "}, 400),
        ({"object_name": "a/\u2003/b"}, 400),
        ({"object_name": "é" * 600}, 400),
        ({"object_name": "/".join(["x" * 99] * 10)}, 200),
        ({"object_name": "x" * 1000}, 400),  # a part between slashes that is too long for the server
        ({"object_name": "x" * 1001}, 422),
        ({"prefix": "a/../../b"}, 400),
        ({"object_name": "files/somebody/theirs"}, 400),
        ({"prefix": "sessions"}, 400),
        ({"object_name": "skills/x"}, 400),
        ({"expiry_seconds": 0}, 422),
        ({"expiry_seconds": 604_801}, 422),
    ],
)
async def test_an_upload_cannot_leave_its_bucket_or_write_to_the_platforms_own_objects(
    root: Person, query: dict[str, Any], status: int
) -> None:
    answer = await upload(root, **query)
    assert (answer.status_code, answer.json()["code"]) == (status, status)


@pytest.mark.parametrize(
    ("endpoint", "beginning"),
    [
        ("https://files.example", "https://files.example/"),
        ("http://files.example:8080/", "http://files.example:8080/"),
        ("files.example:9000", "http://files.example:9000/"),
        (None, "http://127.0.0.1:"),
    ],
)
async def test_links_are_signed_for_the_public_endpoint(api: Any, endpoint: str | None, beginning: str) -> None:
    """The host is part of the signature, so a link for the internal address is refused at the public one."""
    store = blobs_of(api.settings.model_copy(update={"s3_public_endpoint": endpoint}))
    url = await store.presigned_url("a/b.txt", seconds=60)
    await store.close()
    assert url.startswith(f"{beginning}" if endpoint is None else f"{beginning}{BUCKET}/a/b.txt?")
    assert "X-Amz-SignedHeaders=host" in url


@pytest.mark.parametrize("platform", [{"open_config": True}], indirect=True)
async def test_open_config_opens_the_configuration_endpoints_and_nothing_else(platform: Platform) -> None:
    process = await platform.start_api()
    async with client_for(process.url) as client:
        file = {"file": ("a.txt", CONTENT, "text/plain")}
        agent = {"max_iterations": 100, "max_retries": 3, "max_search_results": 10}
        data(await client.post("/api/status/minio/upload", files=file))
        assert data(await client.get("/api/status/minio?smoke=true"))["ok"]
        data(await client.post("/api/app-config/agent", json=agent))
        own = {"object_name": "files/x"}
        assert (await client.post("/api/status/minio/upload", params=own, files=file)).status_code == 400
        for path in ("/api/admin/users", "/api/auth/me", "/api/sessions"):
            assert (await client.get(path)).status_code == 401
    assert "MOORAGE_OPEN_CONFIG is on" in process.log()
