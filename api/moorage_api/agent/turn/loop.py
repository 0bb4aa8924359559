"""One turn of a session as a state machine. After a crash, any runner can continue it from the stored state."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from moorage_api.agent import prompts
from moorage_api.agent.messages import tool_message, user_message
from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.model.outgoing import pictures
from moorage_api.agent.model.servers.errors import LlmError
from moorage_api.agent.ports import (
    OFFER,
    AgentLimits,
    Attachments,
    Gate,
    Journal,
    Message,
    Picture,
    PictureError,
    SandboxLostError,
    Switches,
    Toolset,
    UserMessage,
)
from moorage_api.agent.state import FRESH
from moorage_api.agent.toolsets.tools import Tools
from moorage_api.agent.turn import planner, results, summary
from moorage_api.agent.turn.executor import call_key, execute, read_consent, stopped_call_event
from moorage_api.agent.turn.progress import TurnLimitError
from moorage_api.agent.turn.stopped_programs import kill_program_of_call
from moorage_api.agent.turn.work import InterruptedByUserError, Work, continue_without
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
    today: str = "",
    guidance: str = "",
) -> None:
    """Continue from the stored state until an event is recorded that ends the turn: done, wait or error.

    May be cancelled or killed at any point and called again, also by another process: recorded work is not repeated.
    Exceptions of `Journal.record` propagate; after UnreadMessagesError, call `run_turn` again.

    `today` is the day as the model reads it. The model is told when it differs from that of the message before.
    `guidance` is added to the system prompt. A change takes effect at the next message of the user.
    """
    tools = Tools(toolsets, switches, max_functions=limits.max_functions, guidance=guidance)
    tools.restore(journal.transcript)
    work = Work(journal, llm=llm, tools=tools, attachments=attachments, gate=gate, limits=limits, today=today)
    must_read = True
    while True:
        try:
            if journal.stop_requested:
                await _stop(work)
                return
            # finish a started call first: its result must follow the assistant message that contains the call
            if (must_read or journal.interrupted) and not any(call.is_started for call in work.state.calls):
                await _read_messages(work)
                must_read = False
            if await _advance(work, tools):
                return
        except InterruptedByUserError:
            continue
        except TurnLimitError as error:
            await _begin_last_answer(work, error)
        except (LlmError, SandboxLostError) as error:
            await _fail(work, error)
            return


async def _advance(work: Work, tools: Tools) -> bool:
    """Do one step of the current phase. True when the turn is over."""
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
    """Read the user's new messages: a new task, the answer to a question, or a message during the work."""
    unread = await work.journal.unread_messages()
    if not unread:
        return
    read = [await _text_with_files(work, message) for message in unread]
    texts, shown = [text for text, _ in read], [picture for _, found in read for picture in found]
    consumed_seq = unread[-1].seq
    state = work.state
    if state.phase == "waiting" and state.calls[0].consent == "asked":
        await read_consent(work, texts, consumed_seq=consumed_seq)
        return
    if state.phase == "waiting":
        asked, *others = state.calls
        messages = [pictures.attach(tool_message(asked, "\n\n".join(texts)), shown)]
        messages += [tool_message(call, prompts.NOT_RUN_ASKED) for call in others]
        await work.record(messages=messages, consumed_seq=consumed_seq, phase="executing", calls=[], **FRESH)
        return
    messages = [tool_message(call, prompts.NOT_RUN_NEW_MESSAGE) for call in state.calls]
    if state.today not in ("", work.today):
        messages.append(user_message(prompts.today_is(work.today)))
    messages += [pictures.attach(user_message(text), found) for text, found in read]
    if state.phase in ("idle", "planning"):
        new_turn = {
            "phase": "planning",
            "turn": state.turn + (state.phase == "idle"),
            "plans": 0,
            "steps": [],
            "files": [],
            "attachments": None,
            "unstored": {},
        }
        if not work.llm.can_force:
            messages.append(user_message(prompts.PLAN_FIRST))
    else:
        new_turn = {"phase": "replanning"}
        messages.append(user_message(prompts.NEW_MESSAGE))
    messages[-1] |= await _renew_offer(work)
    days = {"started_on": state.started_on or work.today, "today": work.today}
    await work.record(messages=messages, consumed_seq=consumed_seq, calls=[], invalid=0, **days, **FRESH, **new_turn)


async def _renew_offer(work: Work) -> dict[str, str]:
    """Offer the tools that are on from now on; the key for the message with which that is stored."""
    offer = await work.tools.renew()
    if offer and work.tools.left_out:
        logger.warning(
            "Session %s: %d tools are not offered to the model, because there are more than %d",
            work.journal.session_id,
            len(work.tools.left_out),
            work.limits.max_functions,
        )
    return {OFFER: offer} if offer else {}


async def _text_with_files(work: Work, message: UserMessage) -> tuple[str, list[Picture]]:
    """Copy the message's files into the sandbox; return the text for the model, with their paths, and the pictures."""
    copied: list[FileInfo] = []
    if message.attachments:
        with continue_without("the user's files"), suppress(SandboxLostError):  # the first step reports it
            copied = list(await work.unless_stopped(work.attachments.to_sandbox(message.attachments)))
    copied_ids = {file.id for file in copied}
    missing = [file for file in message.attachments if file.id not in copied_ids]
    text, shown = prompts.message_text(message.text, copied, missing), []
    for place, file in enumerate(pictures.select_pictures(copied)[: work.limits.max_pictures]):
        try:
            with suppress(SandboxLostError):
                reading = work.attachments.read_picture(file.filepath, key=f"{message.seq}.{place}")
                shown.append(await work.unless_stopped(reading))
        except PictureError as error:
            text += f"\n{prompts.picture_failure(error)}"
    return text, shown


async def _stop(work: Work) -> None:
    """End the turn because the user stopped it: start nothing more, and do not wait for running calls."""
    killed = [call for call in work.state.calls if call.is_started]
    for call in killed:
        await kill_program_of_call(work.gate, call.function, call.args, key=f"-{await call_key(work, call)}")
    events: list[ChatEvent] = [stopped_call_event(call) for call in killed]
    messages: list[Message] = [
        tool_message(call, prompts.STOPPED_CALL if call.is_started else prompts.NOT_RUN_STOPPED)
        for call in work.state.calls
    ]
    # `consumed_seq` is not set: the journal marks them as read, unless the user wrote again after the stop
    unread = await work.journal.unread_messages()
    messages += [user_message(prompts.message_text(message.text, [], message.attachments)) for message in unread]
    await _end(
        work,
        [*events, *results.delivery(work), *_plan_end_events(work), DoneEvent()],
        [*messages, user_message(prompts.STOPPED)],
    )


async def _begin_last_answer(work: Work, error: TurnLimitError) -> None:
    """End the running step because a limit was reached; the model is asked for a last answer next."""
    running = work.state.running_step()
    steps = work.state.with_step(running.id, "failed") if running else work.state.steps
    events = [StepEvent(id=running.id, description=running.description, status="failed")] if running else []
    await work.record(
        *events,
        messages=[user_message(prompts.last_answer(error.ending.reason))],
        phase="summarising",
        steps=steps,
        calls=[],
        ending=error.ending,
    )


async def _fail(work: Work, error: LlmError | SandboxLostError) -> None:
    """End the turn with an error that the user can read."""
    killed = [stopped_call_event(call) for call in work.state.calls if call.is_started]
    messages = [tool_message(call, prompts.NOT_RUN_ENDED) for call in work.state.calls]
    await _end(
        work,
        [*killed, *results.delivery(work), *_plan_end_events(work), ErrorEvent(error=str(error), code=error.code)],
        [*messages, user_message(prompts.work_ended(str(error)))],
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


def _plan_end_events(work: Work) -> list[ChatEvent]:
    """Events that mark the running step as failed. Steps that have not started stay pending."""
    running = work.state.running_step()
    if running is None:
        return []
    steps = work.state.with_step(running.id, "failed")
    return [StepEvent(id=running.id, description=running.description, status="failed"), PlanEvent(steps=steps)]
