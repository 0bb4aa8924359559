"""Request and response bodies of the session module."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, field_serializer

from moorage_api.events.schemas import FileInfo
from moorage_api.text import StorableText
from moorage_sandbox.messages import ConsoleRecord

SessionStatus = Literal["pending", "running", "waiting", "completed"]


class CreateSessionResponse(BaseModel):
    session_id: str


class ListSessionItem(BaseModel):
    session_id: str
    title: str
    latest_message: str
    latest_message_at: datetime | None
    status: SessionStatus
    unread_message_count: int

    @field_serializer("latest_message_at")
    def _iso(self, value: datetime | None) -> str | None:
        """Format as ISO 8601 in UTC."""
        return value.isoformat().replace("+00:00", "Z") if value else None


class ListSessionResponse(BaseModel):
    sessions: list[ListSessionItem]


class SessionEvent(BaseModel):
    event: str
    data: dict[str, Any]


class SessionDetail(BaseModel):
    session_id: str
    title: str
    status: SessionStatus
    events: list[SessionEvent]


class ChatRequest(BaseModel):
    """With `message`: send it and follow its run. Without: follow the newest run after `event_id`."""

    message: StorableText | None = Field(default=None, max_length=100_000)
    attachments: list[UUID] | None = Field(default=None, max_length=50)
    event_id: str | None = Field(default=None, coerce_numbers_to_str=True)
    """An id that we did not issue is ignored: clients may keep ids from other servers."""
    timestamp: int | float | str | None = None
    """Ignored: some clients send it, but events carry the time at which they are stored."""

    @property
    def has_content(self) -> bool:
        """False for an empty message without attachments: some clients send one in order to follow a run."""
        return bool((self.message or "").strip() or self.attachments)


class SessionFilesResponse(BaseModel):
    files: list[FileInfo]


class ReadFileRequest(BaseModel):
    filepath: StorableText = Field(min_length=1, max_length=4096)


class ReadFileResponse(BaseModel):
    filepath: str
    content: str


class ReadShellRequest(BaseModel):
    session_id: StorableText = Field(min_length=1, max_length=200)
    """The name that the agent gave to the shell."""


class ReadShellResponse(BaseModel):
    session_id: str
    output: str
    console_records: list[ConsoleRecord]
