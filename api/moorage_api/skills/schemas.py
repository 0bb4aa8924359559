"""Request and response bodies of the skill endpoints. Source: the HTTP contract, "Skill Ecosystem Module (v2)"."""

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
    """`manifest` may set `version`, `runtime_type`, `server`, `tools` and `entry`; other fields come from SKILL.md."""

    source_type: SourceType
    source_ref: Annotated[StorableText, Field(min_length=1, max_length=2048)] = Field(
        examples=["https://github.com/owner/repo/tree/main/skills/my-skill", "/srv/skills/my-skill"]
    )
    manifest: dict[str, Any] | None = None
    skill_md: Annotated[StorableText, Field(max_length=MAX_SKILL_MD_CHARS)] | None = None
    """Replaces the SKILL.md of the source."""


class SkillItem(BaseModel):
    """`digest` is the SHA-256 of the archive; `risk` is the report about its files."""

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
    """`enforce_confirmation`: the user is asked before each call of a high-risk skill's tool."""

    mode: Literal["off", "enforce_confirmation"]
