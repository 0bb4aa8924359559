"""The closed set of events that a session's log holds and its streams carry."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

StepStatus = Literal["pending", "running", "completed", "failed"]
SandboxPhase = Literal["queued", "starting", "ready", "suspended", "resuming", "failed"]


class FileInfo(BaseModel):
    """Source: the HTTP contract, "FileInfo". `key` is the object's key; `filepath` is the path in the sandbox or ""."""

    id: str
    filename: str
    filepath: str = ""
    key: str = ""
    extension: str = ""
    mime_type: str = "application/octet-stream"
    size: int = 0


class MessageEvent(BaseModel):
    """A message, complete or still growing.

    While the model streams, `partial` is true, `message` is the text so far and `stream_id` stays the same; such events
    are never stored. The complete message is stored.
    """

    type: Literal["message"] = "message"
    role: Literal["user", "assistant"]
    message: str
    attachments: list[FileInfo] = []
    partial: bool = False
    stream_id: str | None = None


class TitleEvent(BaseModel):
    type: Literal["title"] = "title"
    title: str


class PlanStep(BaseModel):
    id: str
    description: str
    status: StepStatus = "pending"


class PlanEvent(BaseModel):
    type: Literal["plan"] = "plan"
    steps: list[PlanStep]


class StepEvent(BaseModel):
    type: Literal["step"] = "step"
    id: str
    description: str
    status: StepStatus


class ToolEvent(BaseModel):
    """A tool call, started or finished. `name` is the toolkit.

    The log holds `content.screenshot_key`; streams deliver a URL as `content.screenshot` instead.
    """

    type: Literal["tool"] = "tool"
    tool_call_id: str
    name: Literal["file", "shell", "browser", "search", "message", "mcp", "a2a", "skill"]
    function: str
    args: dict[str, Any]
    status: Literal["calling", "called"]
    content: dict[str, Any] | None = None


class SandboxEvent(BaseModel):
    type: Literal["sandbox"] = "sandbox"
    phase: SandboxPhase
    reason: str = ""
    position: int | None = None


class WaitEvent(BaseModel):
    type: Literal["wait"] = "wait"


class DoneEvent(BaseModel):
    type: Literal["done"] = "done"


class ErrorEvent(BaseModel):
    type: Literal["error"] = "error"
    error: str
    code: str


ChatEvent = Annotated[
    MessageEvent | TitleEvent | PlanEvent | StepEvent | ToolEvent | SandboxEvent | WaitEvent | DoneEvent | ErrorEvent,
    Field(discriminator="type"),
]

STREAM_ENDING_TYPES = frozenset({"done", "wait", "error"})
"""Types after which a chat stream closes."""
