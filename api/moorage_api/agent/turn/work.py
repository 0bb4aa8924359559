"""One turn in progress: its state and ports, recording, asking the model, and waiting that the user can interrupt."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from moorage_api.agent import prompts
from moorage_api.agent.messages import assistant_message, call_message, tool_message, user_message
from moorage_api.agent.model.incoming import foreign
from moorage_api.agent.model.incoming.answers import Answer, RawCall
from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.model.servers.errors import LlmError
from moorage_api.agent.ports import AgentLimits, Attachments, Gate, Journal, Message, SavedFiles
from moorage_api.agent.state import AgentState, OpenCall
from moorage_api.agent.toolsets.tools import Tools
from moorage_api.errors import DomainError, FencedError
from moorage_api.events.schemas import ChatEvent
from moorage_common.tasks import race

logger = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 0.25
"""The journal's signal may be older than the messages already read. Then it is checked again after this time."""

T = TypeVar("T")


class InterruptedByUserError(Exception):
    """The user stopped the run or sent a message while we waited. The caller reads the journal again."""


class Work:
    """Belongs to one `run_turn`. `state` equals the journal's, except that the counts of model turns may be ahead."""

    def __init__(
        self,
        journal: Journal,
        *,
        llm: LlmClient,
        tools: Tools,
        attachments: Attachments,
        gate: Gate,
        limits: AgentLimits,
        today: str = "",
    ) -> None:
        self.journal = journal
        self.llm = llm
        self.tools = tools
        self.attachments = attachments
        self.gate = gate
        self.limits = limits
        self.today = today
        self.state = AgentState.model_validate(journal.state)
        self.has_restored_long_form = False
        """A request was shortened after a 500 in this turn, and the next one was sent in its long form again."""
        self.keys: dict[int, str] = {}
        """Idempotency keys by call number, of the calls that this runner has started.

        A started call that is missing here was started by an earlier runner.
        """

    async def record(
        self,
        *events: ChatEvent,
        messages: Sequence[Message] = (),
        consumed_seq: int | None = None,
        **changes: Any,
    ) -> list[int]:
        """Store events, messages and the changed state in one transaction. Returns the seqs of the events."""
        # storing messages marks the sandbox's notices as read, so they are kept as notes until the model gets them
        if messages and "notes" not in changes:
            changes["notes"] = [*self.state.notes, *await self.gate.notices()]
        state = self.state.model_copy(update=changes)
        seqs = await self.journal.record(
            *events, messages=messages, state=state.model_dump(mode="json"), consumed_seq=consumed_seq
        )
        self.state = state
        return seqs

    async def add_notes(self) -> None:
        """Add the notes and the sandbox's notices to the transcript, so that the model gets them before it answers."""
        waiting = [*self.state.notes, *await self.gate.notices()]
        if waiting:
            await self.record(messages=[user_message(prompts.notice("\n".join(waiting)))], notes=[])

    async def reject(self, answer: Answer, problem: str) -> None:
        """Tell the model that its answer cannot be used. Raises LlmError after too many such answers in a row."""
        invalid = self.count_invalid_answer()
        messages: list[Message] = []
        if answer.calls:
            calls = self.number_calls(answer.calls)
            messages.append(
                self.with_foreign_fields(call_message(answer.text, calls, answer.calls), answer, answer.calls)
            )
            messages += [tool_message(call, problem) for call in calls]
        else:
            if answer.text.strip():
                messages.append(self.with_foreign_fields(assistant_message(answer.text), answer))
            messages.append(user_message(problem))
        await self.record(messages=messages, invalid=invalid, next_call=self.state.next_call + len(answer.calls))

    def with_foreign_fields(self, message: Message, answer: Answer, calls: Sequence[RawCall] = ()) -> Message:
        """The message of this answer with the fields that only its model understands. `calls` as in the message."""
        fields = [call.foreign for call in calls]
        return foreign.attach(message, self.llm.identity, text=answer.text, fields=answer.foreign, calls=fields)

    def count_invalid_answer(self) -> int:
        """The number of invalid answers in a row, with this one. Raises LlmError if there are too many."""
        invalid = self.state.invalid + 1
        if invalid > self.limits.max_retries:
            raise LlmError("llm_failed", f"The model gave {invalid} invalid answers in a row; try another model")
        return invalid

    def number_calls(self, calls: Sequence[RawCall]) -> list[OpenCall]:
        first = self.state.next_call
        return [OpenCall(number=first + place, function=call.name) for place, call in enumerate(calls)]

    async def is_interrupted(self) -> bool:
        """Whether there is a stop request or an unread message. A signal for a message already read does not count."""
        if self.journal.stop_requested:
            return True
        return self.journal.interrupted and bool(await self.journal.unread_messages())

    async def unless_stopped(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Await a tool, and cancel it when the user stops the run. Raises InterruptedByUserError then."""
        return await self._race(waiting, self._wait_until_stopped())

    async def unless_interrupted(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Await `waiting`, and cancel it when the user stops the run or sends a message.

        Raises InterruptedByUserError then.
        """
        return await self._race(waiting, self._wait_until_interrupted())

    async def _wait_until_stopped(self) -> None:
        while not self.journal.stop_requested:
            await self.journal.wait_interrupted()
            if not self.journal.stop_requested:
                await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _wait_until_interrupted(self) -> None:
        while True:
            await self.journal.wait_interrupted()
            if await self.is_interrupted():
                return
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    @staticmethod
    async def _race(waiting: Coroutine[Any, Any, T], signal: Coroutine[Any, Any, None]) -> T:
        async with race(waiting, signal) as (work, watch):
            if work.done():
                result: T = work.result()
                return result
            watch.result()  # raises if the lease or the database was lost
            raise InterruptedByUserError

    async def save_files(self, filepaths: Sequence[str]) -> SavedFiles:
        """Store files of the sandbox for the user. Raises InterruptedByUserError if the user stops the run."""
        if not filepaths:
            return SavedFiles()
        return await self.unless_stopped(self.attachments.from_sandbox(list(dict.fromkeys(filepaths))))


@contextmanager
def continue_without(what: str) -> Iterator[None]:
    """Log a domain error and continue, except FencedError: without its lease a run must end."""
    try:
        yield
    except FencedError:
        raise
    except DomainError as error:
        logger.warning("The run continues without %s: %s", what, error)
