"""Skills pass through the gate with their own scope, and the gate checks ids, digests and sizes."""

from __future__ import annotations

import hashlib

import httpx
import pytest

from moorage_sandbox.client import GateClient
from moorage_sandbox.protocol import MAX_SKILL_ARCHIVE_BYTES, GateError, Scope
from support.gate import FakeBox, Gate

ARCHIVE = b"a skill's archive"
DIGEST = hashlib.sha256(ARCHIVE).hexdigest()


async def test_an_installed_skill_is_listed_with_its_digest(gate: Gate, box: FakeBox) -> None:
    async with gate.client() as client:
        await client.bind()
        assert await client.skill_digests() == {}
        await client.put_skill("pdf--0a1b2c3d", DIGEST, ARCHIVE)
        assert await client.skill_digests() == {"pdf--0a1b2c3d": DIGEST}
    assert box.files == {"pdf--0a1b2c3d": ARCHIVE}


async def test_invalid_ids_and_digests_from_the_box_are_left_out(gate: Gate, box: FakeBox) -> None:
    box.skills = {"pdf": DIGEST, "../pdf": DIGEST, "other": "no digest", "third": 3, "a" * 101: DIGEST}
    async with gate.client() as client:
        await client.bind()
        assert await client.skill_digests() == {"pdf": DIGEST}


@pytest.mark.parametrize(
    ("skill_id", "digest"),
    [("..", DIGEST), ("a/b", DIGEST), ("PDF", DIGEST), ("a" * 101, DIGEST), ("pdf", "0" * 63), ("pdf", "sha256:0")],
)
async def test_a_skill_without_a_proper_name_is_refused(gate: Gate, box: FakeBox, skill_id: str, digest: str) -> None:
    async with gate.client() as client:
        await client.bind()
        with pytest.raises(GateError) as error:
            await client.put_skill(skill_id, digest, ARCHIVE)
    assert (error.value.code in ("invalid", "not_found"), box.files) == (True, {})


async def test_an_archive_beyond_the_limit_is_refused_before_it_is_sent(gate: Gate, box: FakeBox) -> None:
    async with gate.client() as client:
        await client.bind()
        headers = client.headers(Scope.SKILLS)
    async with httpx.AsyncClient(base_url=gate.url) as http:
        content = bytes(MAX_SKILL_ARCHIVE_BYTES + 1)
        answer = await http.put(f"/v1/skills/pdf?digest={DIGEST}", content=content, headers=headers)
    assert (answer.status_code, box.files) == (413, {})


async def refusal_of(client: GateClient) -> list[str]:
    codes = []
    async with client:
        for asking in (client.skill_digests(), client.put_skill("pdf", DIGEST, ARCHIVE)):
            with pytest.raises(GateError) as error:
                await asking
            codes.append(error.value.code)
    return codes


async def test_only_the_runner_with_the_lease_may_install_skills(gate: Gate, box: FakeBox) -> None:
    async with gate.client(epoch=5) as client:
        await client.bind()
        call_only = client.headers(Scope.CALL)
    assert await refusal_of(gate.client(key="api", epoch=5)) == ["forbidden", "forbidden"]
    assert await refusal_of(gate.client(epoch=4)) == ["stale_epoch", "stale_epoch"]
    assert await refusal_of(gate.client(session="s2", epoch=6)) == ["forbidden", "forbidden"]
    async with httpx.AsyncClient(base_url=gate.url, headers=call_only) as http:
        assert (await http.get("/v1/skills")).status_code == 403
    assert box.files == {}
