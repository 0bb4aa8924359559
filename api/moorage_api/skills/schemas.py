"""Bodies of the skill module. Source: the shared contract, "Skill Ecosystem Module (v2)"."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from moorage_api.skills.bundles.manifest import RuntimeType
from moorage_api.skills.bundles.risk import RiskReport
from moorage_api.text import StorableText

SourceType = Literal["local", "github"]
MAX_SKILL_MD_CHARS = 256 * 1024


class SkillInstallRequest(BaseModel):
    """`manifest` may give `version`, `runtime_type`, `server`, `tools` and `entry`; SKILL.md says the rest."""

    source_type: SourceType
    source_ref: Annotated[StorableText, Field(min_length=1, max_length=2048)] = Field(
        examples=["https://github.com/owner/repo/tree/main/skills/my-skill", "/srv/skills/my-skill"]
    )
    manifest: dict[str, Any] | None = None
    skill_md: Annotated[StorableText, Field(max_length=MAX_SKILL_MD_CHARS)] | None = None
    """Stored as SKILL.md, instead of the one that the source has."""


class SkillItem(BaseModel):
    """`digest` names the archive; `risk` is what its files gave reason to say."""

    id: str
    slug: str
    name: str
    description: str
    version: str
    source_type: SourceType
    source_ref: str
    runtime_type: RuntimeType
    enabled: bool
    installed_by: str | None
    created_at: datetime
    updated_at: datetime
    bundle_file_count: int
    context_ref_count: int
    last_sync_at: str | None
    digest: str
    risk: RiskReport


class SkillListResponse(BaseModel):
    skills: list[SkillItem]


class SkillEnabledRequest(BaseModel):
    enabled: bool


class SkillRiskPolicyItem(BaseModel):
    """`enforce_confirmation`: tools of skills of high risk ask the user before each call."""

    mode: Literal["off", "enforce_confirmation"]
