"""Endpoints of skills. All of them are for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from moorage_api.config.service import ConfigService
from moorage_api.http.envelope import Envelope, ok
from moorage_api.http.provided import provide
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

Skills = Annotated[SkillService, Depends(provide(SkillService))]
Config = Annotated[ConfigService, Depends(provide(ConfigService))]


@router.get("")
async def list_skills(skills: Skills) -> Envelope[SkillListResponse]:
    """List all installed skills, including disabled ones."""
    return ok(SkillListResponse(skills=await skills.read_all()))


@router.post("/install")
async def install_skill(body: SkillInstallRequest, user: AdminUser, skills: Skills) -> Envelope[SkillItem]:
    """Install a skill from a directory below an allowed root, or from a GitHub tree URL. An equal name is an update."""
    return ok(await skills.install(body, installed_by=user.id))


@router.get("/policy")
async def get_skill_policy(config: Config) -> Envelope[SkillRiskPolicyItem]:
    """Read whether the user is asked before each call of a high-risk skill's tool."""
    return ok(SkillRiskPolicyItem(mode=await config.skill_policy()))


@router.post("/policy")
async def update_skill_policy(body: SkillRiskPolicyItem, config: Config) -> Envelope[None]:
    """Set the policy for everyone: `off` or `enforce_confirmation`."""
    await config.update_skill_policy(body.mode)
    return ok()


@router.post("/{skill_key}/enabled")
async def set_skill_enabled(skill_key: SkillKey, body: SkillEnabledRequest, skills: Skills) -> Envelope[None]:
    """Switch a skill on or off for everyone. `skill_key` is its id or its slug."""
    await skills.set_enabled(skill_key, enabled=body.enabled)
    return ok()


@router.delete("/{skill_key}")
async def delete_skill(skill_key: SkillKey, skills: Skills) -> Envelope[None]:
    """Delete a skill and all users' preferences for it."""
    await skills.delete(skill_key)
    return ok()
