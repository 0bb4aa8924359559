"""The state of the agent. It is stored with every record and is all that another runner needs to continue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from moorage_api.agent.model.servers.counting import TokenCount
from moorage_api.events.schemas import FileInfo, PlanStep

if TYPE_CHECKING:
    from moorage_api.agent.model.llm import LlmClient

Toolkit = Literal["file", "shell", "browser", "search", "message", "mcp", "a2a", "skill"]
Phase = Literal["idle", "planning", "replanning", "executing", "summarising", "waiting"]


class OpenCall(BaseModel):
    """A tool call of the last assistant message that has no tool message yet.

    `toolkit`: the toolset that runs it; set when the `calling` event is stored, so from then on the call may have run.
    `problem`: why it cannot be run.
    """

    number: int
    function: str
    args: dict[str, Any] = {}
    problem: str = ""
    toolkit: Toolkit | None = None
    consent: Literal["", "asked", "given"] = ""
    """The user's permission, for a call that needs it."""
    note: str = ""
    """A note for the model at the end of the result."""

    @property
    def is_started(self) -> bool:
        return self.toolkit is not None

    @property
    def id(self) -> str:
        """Our own id, unique within the session. Some model servers require exactly nine letters and digits."""
        return f"call{self.number:05d}"


class Shortened(BaseModel):
    """Which part of the transcript is shortened for the model. Positions are indexes into the transcript.

    They change only when the conversation does not fit any more, so that providers can cache what comes before.
    `summary` replaces all messages before `summarised_before`. Before `clipped_before`, texts are clipped.
    """

    clipped_before: int = 0
    clipped_chars: int = 0
    summarised_before: int = 0
    pictures_before: int = 0
    """Pictures before this position are sent as words."""
    summary: str = ""
    quotes: list[str] = []
    """What the user wrote in the summarised messages, word for word."""
    day: str = ""
    """The day of the summary. Messages after it say when another day began."""
    flat_before: int = 0
    """Calls and results before this position are sent as plain text, because the server refused them as they are."""
    bare_before: int = 0
    """Results and arguments before this position are not sent, because the server refused them as plain text, too."""
    context_tokens: int | None = None
    """The window we learned when the server refused a request as too long. Applies to the model `context_of` only."""
    context_of: str = ""

    def window(self, llm: LlmClient) -> int:
        """Size of this model's context window in tokens, for the request and the answer together."""
        if self.context_tokens is not None and self.context_of == llm.identity:
            return min(self.context_tokens, llm.context_tokens)
        return llm.context_tokens


class Ending(BaseModel):
    """A limit that ends the turn. `reason` is a sentence for the user."""

    code: str
    reason: str


FRESH: dict[str, Any] = {
    "iterations": 0,
    "turn_iterations": 0,
    "outcomes": [],
    "failures": 0,
    "all_failures": 0,
    "ending": None,
}
"""The counts after a message of the user: every limit begins anew."""


class AgentState(BaseModel):
    """Never changed in place: a changed copy replaces it after `Journal.record` has stored the copy."""

    phase: Phase = "idle"
    turn: int = 0
    """Number of the user's current task; part of the stream ids."""
    plans: int = 0
    """Plans made in this turn."""
    titled: bool = False
    started_on: str = ""
    """The day of the session's first message, such as "Saturday, 2026-11-28"."""
    today: str = ""
    """The day that the model was told last."""
    steps: list[PlanStep] = []
    calls: list[OpenCall] = []
    call_failed: bool = False
    """A call of the last assistant message failed. The model did not know that when it made the other calls."""
    next_step: int = 1
    next_call: int = 1
    iterations: int = 0
    """Model turns since the current step or plan began."""
    turn_iterations: int = 0
    """Model turns since the user's last message."""
    invalid: int = 0
    """Invalid answers in a row."""
    outcomes: list[str] = []
    """Digests of the last calls, with their arguments and results, since the user's last message."""
    failures: int = 0
    """Steps in a row that failed."""
    all_failures: int = 0
    """Steps that failed since the user's last message."""
    ending: Ending | None = None
    """Why the turn ends early. The model is then asked once for a last answer."""
    files: list[str] = []
    """Sandbox paths of results that are not stored yet, because the sandbox or the object store did not answer."""
    attachments: list[FileInfo] | None = None
    """The stored results of this turn's steps, for the message that ends the turn."""
    unstored: dict[str, str] = {}
    """Paths of results that could not be stored, and why."""
    notes: list[str] = []
    """Notices that the model must get with the next request."""
    shortened: Shortened = Shortened()
    token_count: TokenCount = TokenCount()

    def token_ratio(self, llm: LlmClient) -> float:
        """The server's tokens for one of ours; 1 as long as it is not known."""
        return self.token_count.ratio if self.token_count.model == llm.identity else 1.0

    def running_step(self) -> PlanStep | None:
        return next((step for step in self.steps if step.status == "running"), None)

    def next_pending_step(self) -> PlanStep | None:
        return next((step for step in self.steps if step.status == "pending"), None)

    def with_step(self, step_id: str, status: Literal["running", "completed", "failed"]) -> list[PlanStep]:
        """A copy of the steps in which one step has the new status."""
        return [step.model_copy(update={"status": status}) if step.id == step_id else step for step in self.steps]
