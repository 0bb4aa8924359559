"""Where the agent is in its work: stored with every event, and all that another runner needs to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from moorage_api.events.schemas import FileInfo, PlanStep

if TYPE_CHECKING:
    from moorage_api.agent.llm import LlmClient

Toolkit = Literal["file", "shell", "browser", "search", "message", "mcp", "a2a", "skill"]
Phase = Literal["idle", "planning", "replanning", "executing", "summarising", "waiting"]


class OpenCall(BaseModel):
    """A tool call of the last assistant message that has no tool message yet.

    `toolkit`: who runs it, once its `calling` event is stored, so that it may have run. `problem`: why it can't be run.
    """

    number: int
    function: str
    args: dict[str, Any] = {}
    problem: str = ""
    toolkit: Toolkit | None = None
    consent: Literal["", "asked", "given"] = ""
    """Of the user, for a call that needs it."""

    @property
    def started(self) -> bool:
        return self.toolkit is not None

    @property
    def id(self) -> str:
        """Unique within the session, whatever the model called it. Nine letters and digits: some servers insist."""
        return f"call{self.number:05d}"


class Shortened(BaseModel):
    """How much of the transcript the model no longer gets; positions are indexes into it.

    Before `elided_before`, long texts of tools are cut; before `summarised_before`, `summary` stands for everything.
    """

    elided_before: int = 0
    summarised_before: int = 0
    summary: str = ""
    context_tokens: int | None = None
    """Smaller than the model's setting once its server has said that it takes less; holds for `context_of` only."""
    context_of: str = ""

    def window(self, llm: LlmClient) -> int:
        """How much this model reads, answer included."""
        if self.context_tokens is not None and self.context_of == llm.identity:
            return self.context_tokens
        return llm.context_tokens


class AgentState(BaseModel):
    """Changed by copies only: a copy counts once `Journal.record` has stored it."""

    phase: Phase = "idle"
    turn: int = 0
    """Counts what the user asked for; part of the stream ids."""
    plans: int = 0
    """Plans made in this turn."""
    titled: bool = False
    steps: list[PlanStep] = []
    calls: list[OpenCall] = []
    call_failed: bool = False
    """A call of the last assistant message has failed, which the model did not know when it made the others."""
    next_step: int = 1
    next_call: int = 1
    iterations: int = 0
    """Model turns since the user last spoke."""
    invalid: int = 0
    """Answers in a row that could not be used."""
    last_outcome: str = ""
    """Digest of the last call, its arguments and its result."""
    repeats: int = 0
    """How often in a row a call has come out the same."""
    files: list[str] = []
    """Paths that steps have named as results."""
    attachments: list[FileInfo] | None = None
    """`files`, once they are stored."""
    notes: list[str] = []
    """What the model has to be told before it is asked next."""
    shortened: Shortened = Shortened()

    def running_step(self) -> PlanStep | None:
        return next((step for step in self.steps if step.status == "running"), None)

    def next_pending_step(self) -> PlanStep | None:
        return next((step for step in self.steps if step.status == "pending"), None)

    def with_step(self, step_id: str, status: Literal["running", "completed", "failed"]) -> list[PlanStep]:
        """The steps, one of them changed."""
        return [step.model_copy(update={"status": status}) if step.id == step_id else step for step in self.steps]
