"""A separate api for the tests of skills, because skills are global and would change the tests of other modules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.accounts import Person, admin, client_for, data
from support.processes import Platform, shared_platform
from support.services import Services, run
from support.skills import GitHub, running_github


@dataclass
class SkillApi:
    """`roots` is the directory that local skills may be installed from."""

    platform: Platform
    url: str
    roots: Path
    github: GitHub
    boss: Person
    """Created once, because a login takes longer than most of these tests."""

    @property
    def cache(self) -> Path:
        return self.roots.parent / "cache" / "archives"


@dataclass
class Admin:
    person: Person

    async def install(self, source_type: str, source_ref: object, **more: Any) -> httpx.Response:
        body = {"source_type": source_type, "source_ref": str(source_ref), **more}
        return await self.person.client.post("/api/v2/skills/install", json=body)

    async def install_skill(self, source_type: str, source_ref: object, **more: Any) -> Any:
        return data(await self.install(source_type, source_ref, **more))

    async def refusal(self, source_type: str, source_ref: object, **more: Any) -> tuple[int, str]:
        """Status and reason; the message must say something."""
        answer = await self.install(source_type, source_ref, **more)
        body = answer.json()
        assert body["code"] == answer.status_code
        assert len(body["msg"]) > 10
        return answer.status_code, (body["data"] or {}).get("reason", "")

    async def skills(self) -> dict[str, Any]:
        listed = data(await self.person.client.get("/api/v2/skills"))["skills"]
        return {skill["slug"]: skill for skill in listed}


@pytest.fixture(scope="session")
def skill_api(services: Services) -> Iterator[SkillApi]:
    with running_github() as github, shared_platform(services) as platform:
        roots = platform.directory / "roots"
        roots.mkdir()
        platform.changes.update(
            skills_local_roots=f"{roots}:{platform.directory / 'nowhere'}",
            skills_root_dir=platform.directory / "cache",
            skills_github_archive_url=github.url,
            outbound_private="llm,mcp,a2a,skills",
        )
        process = run(platform.start_api())
        boss = run(admin(process.url, platform.database_url))
        yield SkillApi(platform, process.url, roots, github, boss)


@pytest.fixture
async def boss(skill_api: SkillApi) -> AsyncIterator[Admin]:
    """A super_admin on an api without skills."""
    async with client_for(skill_api.url, skill_api.boss.token) as client:
        boss = Admin(replace(skill_api.boss, client=client))
        for slug in await boss.skills():
            data(await client.delete(f"/api/v2/skills/{slug}"))
        yield boss
