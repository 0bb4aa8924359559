"""One turn of a session as a state machine that any runner can take up where the last one was killed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from moorage_api.agent import planner, prompts, summary
from moorage_api.agent.executor import execute, key_of, stopped_event, take_consent
from moorage_api.agent.llm import LlmClient, LlmError
from moorage_api.agent.messages import tool_message, user_message
from moorage_api.agent.ports import (
    AgentLimits,
    Attachments,
    Gate,
    Journal,
    Message,
    Switches,
    Toolset,
    UserMessage,
)
from moorage_api.agent.tools import Tools
from moorage_api.agent.toolsets.shell import kill_stopped
from moorage_api.agent.work import InterruptedByUserError, Work, going_on_without
from moorage_api.events.schemas import ChatEvent, DoneEvent, ErrorEvent, FileInfo, PlanEvent, StepEvent, WaitEvent

logger = logging.getLogger(__name__)


async def run_turn(
    journal: Journal,
    *,
    llm: LlmClient,
    toolsets: Sequence[Toolset],
    attachments: Attachments,
    gate: Gate,
    limits: AgentLimits,
    switches: Switches,
    guidance: str = "",
) -> None:
    """Work from what the journal has stored until an event is recorded that ends the turn: done, wait or error.

    May be cancelled or killed anywhere and called again, also by another process: whatever was recorded is not done
    again. What `Journal.record` raises travels, UnreadMessagesError included: call again then.

    `guidance` is told to the model with the system prompt; the same in all turns of a session, or caches are of no use.
    """
    tools = Tools(toolsets, switches, max_functions=limits.max_functions)
    if tools.left_out:
        logger.warning("Session %s: %d tools do not fit into the model's list", journal.session_id, len(tools.left_out))
        guidance += prompts.left_out(tools.left_out)
    work = Work(
        journal,
        llm=llm,
        toolsets=toolsets,
        attachments=attachments,
        gate=gate,
        limits=limits,
        guidance=guidance,
    )
    must_read = True
    while True:
        try:
            if journal.stop_requested:
                await _stop(work)
                return
            # a call that may be running is settled first: its message has to follow the assistant's
            if (must_read or journal.interrupted) and not any(call.started for call in work.state.calls):
                await _read_messages(work)
                must_read = False
            if await _advance(work, tools):
                return
        except InterruptedByUserError:
            continue
        except LlmError as error:
            await _fail(work, error)
            return


async def _advance(work: Work, tools: Tools) -> bool:
    """Do the next thing. True when the turn is over."""
    match work.state.phase:
        case "planning":
            return await planner.plan(work)
        case "replanning":
            await planner.replan(work)
            return False
        case "executing":
            return await execute(work, tools)
        case "summarising":
            return await summary.sum_up(work)
        case "waiting":
            await work.record(WaitEvent())
        case "idle":
            await work.record(DoneEvent())
    return True


async def _read_messages(work: Work) -> None:
    """Take in what the user has said: a new task, the answer to a question, or news while at work."""
    unread = await work.journal.unread_messages()
    if not unread:
        return
    said = [await _with_files(work, message) for message in unread]
    consumed_seq = unread[-1].seq
    state = work.state
    if state.phase == "waiting" and state.calls[0].consent == "asked":
        await take_consent(work, said, consumed_seq=consumed_seq)
        return
    if state.phase == "waiting":
        asked, *others = state.calls
        messages = [tool_message(asked, "\n\n".join(said))]
        messages += [tool_message(call, prompts.NOT_RUN_ASKED) for call in others]
        await work.record(
            messages=messages, consumed_seq=consumed_seq, phase="executing", calls=[], iterations=0, repeats=0
        )
        return
    messages = [tool_message(call, prompts.NOT_RUN_NEW_MESSAGE) for call in state.calls]
    messages += [user_message(text) for text in said]
    if state.phase in ("idle", "planning"):
        new_turn = {
            "phase": "planning",
            "turn": state.turn + (state.phase == "idle"),
            "plans": 0,
            "steps": [],
            "files": [],
            "attachments": None,
        }
    else:
        new_turn = {"phase": "replanning", "attachments": None}
        messages.append(user_message(prompts.NEW_MESSAGE))
    await work.record(
        messages=messages, consumed_seq=consumed_seq, calls=[], iterations=0, invalid=0, repeats=0, **new_turn
    )


async def _with_files(work: Work, message: UserMessage) -> str:
    """The message as the model gets it, once its files are where the model can open them."""
    placed: list[FileInfo] = []
    if message.attachments:
        with going_on_without("the user's files"):
            placed = list(await work.unless_stopped(work.attachments.to_sandbox(message.attachments)))
    there = {file.id for file in placed}
    lost = [file for file in message.attachments if file.id not in there]
    return prompts.user_message(message.text, placed, lost)


async def _stop(work: Work) -> None:
    """End the turn as the user asked: nothing more is run, and what is in flight is not waited for."""
    killed = [call for call in work.state.calls if call.started]
    for call in killed:
        await kill_stopped(work.gate, call.function, call.args, key=f"-{await key_of(work, call)}")
    events: list[ChatEvent] = [stopped_event(call) for call in killed]
    messages: list[Message] = [
        tool_message(call, prompts.STOPPED_CALL if call.started else prompts.NOT_RUN_STOPPED)
        for call in work.state.calls
    ]
    # not consumed here: a stop takes them as read, unless the user wrote after it and the turn must go on
    unread = await work.journal.unread_messages()
    messages += [user_message(prompts.user_message(message.text, [], message.attachments)) for message in unread]
    await _end(
        work,
        [*events, *_closed_plan(work), DoneEvent()],
        [*messages, user_message(prompts.STOPPED)],
    )


async def _fail(work: Work, error: LlmError) -> None:
    """End the turn with an error that the user can read."""
    killed = [stopped_event(call) for call in work.state.calls if call.started]
    messages = [tool_message(call, prompts.NOT_RUN_ENDED) for call in work.state.calls]
    await _end(
        work,
        [*killed, *_closed_plan(work), ErrorEvent(error=str(error), code=error.code)],
        [*messages, user_message(prompts.ended(str(error)))],
    )


async def _end(work: Work, events: Sequence[ChatEvent], messages: Sequence[Message]) -> None:
    running = work.state.running_step()
    await work.record(
        *events,
        messages=messages,
        phase="idle",
        steps=work.state.with_step(running.id, "failed") if running else work.state.steps,
        calls=[],
    )


def _closed_plan(work: Work) -> list[ChatEvent]:
    """The running step ends as failed; what was not begun stays pending."""
    running = work.state.running_step()
    if running is None:
        return []
    steps = work.state.with_step(running.id, "failed")
    return [StepEvent(id=running.id, description=running.description, status="failed"), PlanEvent(steps=steps)]
