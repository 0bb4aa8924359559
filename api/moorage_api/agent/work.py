"""One turn in progress: the state, the ports, and how to record, ask the model and notice the user meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from moorage_api.agent import compaction, prompts
from moorage_api.agent.answers import Answer, RawCall
from moorage_api.agent.llm import LlmClient, LlmError, Progress, WindowFullError
from moorage_api.agent.messages import assistant_message, call_message, tool_message, user_message
from moorage_api.agent.ports import AgentLimits, Attachments, Function, Gate, Journal, Message, Toolset
from moorage_api.agent.state import AgentState, OpenCall
from moorage_api.errors import DomainError, FencedError
from moorage_api.events.schemas import ChatEvent, FileInfo

logger = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 0.25
"""A signal may be older than what was read since; it is looked at again after this long."""

T = TypeVar("T")


class InterruptedByUserError(Exception):
    """The user stopped the run or said something new while we waited: look at the journal again."""


class Work:
    """Held by one `run_turn`. `state` is always what the journal has stored, plus the count of model turns."""

    def __init__(
        self,
        journal: Journal,
        *,
        llm: LlmClient,
        toolsets: Sequence[Toolset],
        attachments: Attachments,
        gate: Gate,
        limits: AgentLimits,
        guidance: str = "",
    ) -> None:
        self.journal = journal
        self.llm = llm
        self.toolsets = toolsets
        self.attachments = attachments
        self.gate = gate
        self.limits = limits
        self.guidance = guidance
        self.state = AgentState.model_validate(journal.state)
        self.keys: dict[int, str] = {}
        """By call number, of the calls that this runner has started. A started call not in it lost its runner."""

    async def record(
        self,
        *events: ChatEvent,
        messages: Sequence[Message] = (),
        consumed_seq: int | None = None,
        **changes: Any,
    ) -> list[int]:
        """Store events, messages and the changed state, all or nothing. Returns the seqs of the events."""
        if messages and "notes" not in changes:  # storing messages takes the sandbox's notices as read
            changes["notes"] = [*self.state.notes, *await self.gate.notices()]
        state = self.state.model_copy(update=changes)
        seqs = await self.journal.record(
            *events, messages=messages, state=state.model_dump(mode="json"), consumed_seq=consumed_seq
        )
        self.state = state
        return seqs

    async def ask(
        self, *, tools: Sequence[Function] = (), force: bool = False, progress: Progress | None = None
    ) -> Answer:
        """Ask the model to go on from the transcript. Raises LlmError and InterruptedByUserError."""
        if self.state.iterations >= self.limits.max_iterations:
            raise LlmError(
                "max_iterations",
                f"The work was ended after {self.limits.max_iterations} model turns (`max_iterations`); "
                "say how to go on, or raise the limit",
            )
        await self.tell_notes()
        for _ in range(4):
            messages = await compaction.request(self, tools)
            try:
                answer = await self.unless_interrupted(
                    self.llm.ask(
                        messages, tools=tools, force=force, max_retries=self.limits.max_retries, progress=progress
                    )
                )
            except WindowFullError as error:
                failure = error
                await compaction.expect_less(self)
                continue
            self.state = self.state.model_copy(update={"iterations": self.state.iterations + 1})
            return answer
        raise LlmError(
            failure.code,
            "The model reads too little for this work, even with the conversation shortened as far as it can be; "
            f"choose one with a larger window. {failure}",
        ) from failure

    async def tell_notes(self) -> None:
        """Put into the transcript what the model must know before it goes on."""
        waiting = [*self.state.notes, *await self.gate.notices()]
        if waiting:
            await self.record(messages=[user_message(prompts.notice("\n".join(waiting)))], notes=[])

    async def reject(self, answer: Answer, problem: str) -> None:
        """Tell the model that its answer can't be used. Raises LlmError when that has happened too often."""
        invalid = self.counted_invalid()
        messages: list[Message] = []
        if answer.calls:
            calls = self.number_calls(answer.calls)
            messages.append(call_message(answer.text, calls, answer.calls))
            messages += [tool_message(call, problem) for call in calls]
        else:
            if answer.text.strip():
                messages.append(assistant_message(answer.text))
            messages.append(user_message(problem))
        await self.record(messages=messages, invalid=invalid, next_call=self.state.next_call + len(answer.calls))

    def counted_invalid(self) -> int:
        invalid = self.state.invalid + 1
        if invalid > self.limits.max_retries:
            raise LlmError(
                "llm_failed", f"The model gave {invalid} answers in a row that could not be used; try another model"
            )
        return invalid

    def number_calls(self, calls: Sequence[RawCall]) -> list[OpenCall]:
        first = self.state.next_call
        return [OpenCall(number=first + place, function=call.name) for place, call in enumerate(calls)]

    async def is_interrupted(self) -> bool:
        """Whether the user wants something now; a signal that is older than what was read does not count."""
        if self.journal.stop_requested:
            return True
        return self.journal.interrupted and bool(await self.journal.unread_messages())

    async def unless_stopped(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Await a tool; raises InterruptedByUserError, and waits no longer, once the user has stopped the run."""
        return await self._race(waiting, self._stopped())

    async def unless_interrupted(self, waiting: Coroutine[Any, Any, T]) -> T:
        return await self._race(waiting, self._interrupted())

    async def _stopped(self) -> None:
        while not self.journal.stop_requested:
            await self.journal.wait_interrupted()
            if not self.journal.stop_requested:
                await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _interrupted(self) -> None:
        while True:
            await self.journal.wait_interrupted()
            if await self.is_interrupted():
                return
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    @staticmethod
    async def _race(waiting: Coroutine[Any, Any, T], signal: Coroutine[Any, Any, None]) -> T:
        work, watch = asyncio.ensure_future(waiting), asyncio.ensure_future(signal)
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            watch.result()  # a lost lease or database ends the run here
            raise InterruptedByUserError
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)

    async def saved_files(self, filepaths: Sequence[str]) -> list[FileInfo]:
        """Store files of the sandbox for the user; none where the store or the sandbox is away."""
        if filepaths:
            with going_on_without("attachments"):
                return list(await self.unless_stopped(self.attachments.from_sandbox(filepaths)))
        return []


@contextmanager
def going_on_without(what: str) -> Iterator[None]:
    """Do without what a part that is away would have given. A lost lease travels."""
    try:
        yield
    except FencedError:
        raise
    except DomainError as error:
        logger.warning("Going on without %s: %s", what, error)
