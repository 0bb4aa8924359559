"""HTTP of the skill module, all of it for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from moorage_api.config.service import ConfigService
from moorage_api.http.envelope import Envelope, ok
from moorage_api.http.provided import provided
from moorage_api.skills.schemas import (
    SkillEnabledRequest,
    SkillInstallRequest,
    SkillItem,
    SkillListResponse,
    SkillRiskPolicyItem,
)
from moorage_api.skills.service import SkillService
from moorage_api.text import StorableText
from moorage_api.users.callers import AdminUser, admin_user

router = APIRouter(prefix="/v2/skills", tags=["skills"], dependencies=[Depends(admin_user)])


SkillKey = Annotated[StorableText, Path(max_length=100, description="A skill's id or its slug")]

Skills = Annotated[SkillService, Depends(provided(SkillService))]
Config = Annotated[ConfigService, Depends(provided(ConfigService))]


@router.get("")
async def list_skills(skills: Skills) -> Envelope[SkillListResponse]:
    """All that are installed, disabled ones too."""
    return ok(SkillListResponse(skills=await skills.read_all()))


@router.post("/install")
async def install_skill(body: SkillInstallRequest, user: AdminUser, skills: Skills) -> Envelope[SkillItem]:
    """From an absolute directory below an allowed root, or a GitHub tree URL. The same name again is an update."""
    return ok(await skills.install(body, installed_by=user.id))


@router.get("/policy")
async def get_skill_policy(config: Config) -> Envelope[SkillRiskPolicyItem]:
    """Whether a skill's risky tool waits for the user's yes."""
    return ok(SkillRiskPolicyItem(mode=await config.skill_policy()))


@router.post("/policy")
async def update_skill_policy(body: SkillRiskPolicyItem, config: Config) -> Envelope[None]:
    """Choose it for everyone: `off`, or `enforce_confirmation`."""
    await config.update_skill_policy(body.mode)
    return ok()


@router.post("/{skill_key}/enabled")
async def set_skill_enabled(skill_key: SkillKey, body: SkillEnabledRequest, skills: Skills) -> Envelope[None]:
    """`skill_key` is the skill's id or its slug."""
    await skills.set_enabled(skill_key, enabled=body.enabled)
    return ok()


@router.delete("/{skill_key}")
async def delete_skill(skill_key: SkillKey, skills: Skills) -> Envelope[None]:
    """Also deletes what users had chosen about it."""
    await skills.delete(skill_key)
    return ok()
