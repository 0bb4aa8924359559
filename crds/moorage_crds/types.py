"""The spec and status of an AgentSession. Field names are camelCase in Kubernetes and snake_case in Python."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

MAX_SKILLS = 500
MAX_INITIAL_SKILLS = 12
SKILL_ID_PATTERN = r"^[a-z0-9]+(-+[a-z0-9]+)*$"
SKILL_DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
SESSION_ID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"

SkillPhase = Literal["initial", "backfill"]
ConditionStatus = Literal["True", "False", "Unknown"]
ConditionType = Literal["PodScheduled", "SkillsSynced", "VNCReady", "Ready"]
Phase = Literal["Suspended", "Starting", "Running", "Failed"]


class DesiredState(StrEnum):
    RUNNING = "Running"
    SUSPENDED = "Suspended"


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    def manifest(self) -> dict[str, Any]:
        """Return the JSON object as Kubernetes stores it, without the fields that have no value."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class SkillPin(_Model):
    """One skill of a session, in the version that the session started with."""

    id: Annotated[str, Field(min_length=1, max_length=100, pattern=SKILL_ID_PATTERN)]
    digest: Annotated[str, Field(max_length=71, pattern=SKILL_DIGEST_PATTERN)]
    phase: SkillPhase


class AgentSessionSpec(_Model):
    session_id: Annotated[str, Field(max_length=36, pattern=SESSION_ID_PATTERN)]
    owner_id: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
    desired_state: DesiredState = DesiredState.SUSPENDED
    skills: Annotated[list[SkillPin], Field(max_length=MAX_SKILLS)] = []


class Condition(_Model):
    """`reason` is one CamelCase word and public API; `message` is for people."""

    type: Annotated[str, Field(max_length=64)]
    status: ConditionStatus
    reason: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    message: Annotated[str, Field(max_length=2048)]
    last_transition_time: datetime
    observed_generation: Annotated[int | None, Field(ge=0)] = None


class AgentSessionStatus(_Model):
    observed_generation: int | None = None
    phase: Phase | None = None
    pod_name: Annotated[str | None, Field(max_length=253)] = None
    pod_uid: Annotated[str | None, Field(alias="podUID", max_length=64)] = None
    pod_ip: Annotated[str | None, Field(alias="podIP", max_length=64)] = None
    gate_port: Annotated[int | None, Field(ge=1, le=65535)] = None
    failures: Annotated[int | None, Field(ge=0)] = None
    last_failure_time: datetime | None = None
    conditions: Annotated[list[Condition], Field(max_length=16)] = []

    def condition(self, kind: ConditionType) -> Condition | None:
        return next((condition for condition in self.conditions if condition.type == kind), None)

    @property
    def is_ready(self) -> bool:
        ready = self.condition("Ready")
        return ready is not None and ready.status == "True"


class AgentSession(BaseModel):
    """The parts of the resource that we read."""

    model_config = ConfigDict(frozen=True)

    namespace: str
    name: str
    uid: str
    generation: int
    created_at: datetime
    deleted_at: datetime | None
    spec: AgentSessionSpec
    status: AgentSessionStatus

    @classmethod
    def from_manifest(cls, manifest: dict[str, Any]) -> AgentSession:
        """Raises pydantic's ValidationError for a resource that the API server's schema should have refused."""
        metadata = manifest["metadata"]
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            generation=metadata["generation"],
            created_at=metadata["creationTimestamp"],
            deleted_at=metadata.get("deletionTimestamp"),
            spec=manifest["spec"],
            status=manifest.get("status") or {},
        )
