"""The internal port, from which sandbox pods download skill archives by digest."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest

from moorage_api.settings import Settings
from moorage_api.wiring.resources import blobs_of
from moorage_local.data.ports import free_ports
from support.processes import Platform
from support.sockets import has_no_delay

ARCHIVE = b"an archive, as far as this port cares " * 50_000
DIGEST = hashlib.sha256(ARCHIVE).hexdigest()


@pytest.fixture
async def internal(platform: Platform, settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A client of the internal port, and the URL of the public one."""
    port = free_ports(1)[0]
    platform.changes.update(internal_port=port)
    blobs = blobs_of(settings)
    await blobs.put(f"skills/archives/{DIGEST}.tar.gz", ARCHIVE, content_type="application/gzip")
    await blobs.put("skills/secret.txt", b"secret", content_type="text/plain")
    api = await platform.start_api()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client, api.url
    await blobs.delete(f"skills/archives/{DIGEST}.tar.gz")
    await blobs.delete("skills/secret.txt")
    await blobs.close()


async def test_an_accepted_connection_sends_each_part_of_an_answer_at_once(
    internal: tuple[httpx.AsyncClient, str], platform: Platform
) -> None:
    answer = await internal[0].get("/")
    client_port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
    assert has_no_delay(platform.processes[0].pid, client_port=client_port)


async def test_only_archives_are_served_and_only_by_digest(internal: tuple[httpx.AsyncClient, str]) -> None:
    client, public = internal
    answer = await client.get(f"/internal/skills/sha256:{DIGEST}")
    assert (answer.status_code, answer.content) == (200, ARCHIVE)
    assert answer.headers["content-length"] == str(len(ARCHIVE))
    refused = {
        path: (await client.get(path)).status_code
        for path in (
            f"/internal/skills/sha256:{'0' * 64}",
            f"/internal/skills/{DIGEST}",
            f"/internal/skills/sha256:{DIGEST.upper()}",
            f"/internal/skills/sha256:{DIGEST}%0a",
            f"/internal/skills/sha256:{DIGEST}.tar.gz",
            "/internal/skills/..%2Fsecret.txt",
            "/internal/skills/sha256:..%2F..%2Fsecret.txt",
            "/internal/skills/",
            "/internal/skills",
            "/",
            "/api/sessions",
            "/healthz",
            "/metrics",
            "/docs",
        )
    }
    assert set(refused.values()) == {404}, refused
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await client.request(method, f"/internal/skills/sha256:{DIGEST}")).status_code == 405
    async with httpx.AsyncClient(base_url=public) as outside:
        assert (await outside.get(f"/internal/skills/sha256:{DIGEST}")).status_code == 404
