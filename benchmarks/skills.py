"""The transfer of skills into a sandbox of the local host.

Method: one skill of 200 files, 10 MiB that do not compress, through a real gate into a real box. "Cold": neither the
sandbox nor the runner's cache has it, so the archive comes from the object store. "Matching": the sandbox has it;
what is measured is that nothing is sent. Each sample has a sandbox of its own, bound before the clock starts.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from uuid import uuid4

from benchmarks.rows import Row
from benchmarks.sandboxes import running_host
from moorage_api.objects.store import BlobStore
from moorage_api.skill_runs.sync import SkillSync
from moorage_api.skills.bundles.archive import pack
from moorage_api.skills.bundles.bundle import Bundle
from moorage_api.skills.bundles.limits import MAX_BUNDLE_BYTES, MAX_FILES
from moorage_api.skills.bundles.manifest import parse_manifest
from moorage_api.skills.bundles.risk import RiskReport
from moorage_api.skills.pins import SessionSkill, SessionSkills
from moorage_api.skills.store import SkillArchives
from moorage_sandbox.client import TokenSigner

SAMPLES = 5
SKILL_MD = "---\nname: big\ndescription: As big as a skill may be.\n---\n"


def biggest() -> Bundle:
    chance = random.Random(1)
    size = (MAX_BUNDLE_BYTES - len(SKILL_MD)) // (MAX_FILES - 1)
    files = {f"assets/{number:03}.bin": chance.randbytes(size) for number in range(MAX_FILES - 1)}
    return Bundle("big", {"SKILL.md": SKILL_MD.encode(), **files})


async def measure(
    socket: Path, signer: TokenSigner, blobs: BlobStore, sessions: SessionSkills, directory: Path
) -> list[Row]:
    archive = pack(biggest())
    await SkillArchives(blobs, directory / "none").put(archive)
    manifest = parse_manifest(SKILL_MD, folder="big", overrides={})
    skill = SessionSkill("big--00000000", archive.digest, manifest, "", RiskReport())
    cold: list[float] = []
    matching: list[float] = []
    sent: list[int] = []
    async with running_host(socket, signer) as host:
        for number in range(SAMPLES):
            session_id = str(uuid4())
            archives = SkillArchives(blobs, directory / f"cache-{number}")
            async with await host.put(session_id) as client:
                await client.bind()
                for samples in (cold, matching):
                    sync = SkillSync([skill], archives, sessions)
                    began = time.perf_counter()
                    sync.start(client)
                    assert await sync.problem_with(skill.id, seconds=60) == ""
                    samples.append((time.perf_counter() - began) * 1000)
                    await sync.wait_until_finished()
                    sent.append(sync.sent_bytes)
            await host.http.delete(f"/v1/sandboxes/{session_id}")
    assert set(sent[1::2]) == {0}, "a skill whose digest matches is not sent"
    return [
        Row("skill of 200 files / 10 MiB into a sandbox, cold", "ms", cold, note=f"{sent[0] / 2**20:.1f} MiB sent"),
        Row("the same, digests matching", "ms", matching, "<= 300", "0 bytes sent"),
    ]
