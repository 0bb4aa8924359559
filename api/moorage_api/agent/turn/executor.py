"""Carry out one step: ask the model, run the tools it calls, each at most once, until it finishes the step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from moorage_api.agent import prompts
from moorage_api.agent.messages import assistant_message, call_message, clip, tool_message, user_message
from moorage_api.agent.model.incoming.answers import Answer, objects_in
from moorage_api.agent.model.outgoing import pictures
from moorage_api.agent.ports import Message, Picture, ToolCall, ToolResult
from moorage_api.agent.state import FRESH, OpenCall, Phase
from moorage_api.agent.toolsets.arguments import BadArgumentsError, check_arguments
from moorage_api.agent.toolsets.plan_functions import PLANNING
from moorage_api.agent.toolsets.tools import FINISH, Tools
from moorage_api.agent.toolsets.user_functions import ASK, NOTIFY
from moorage_api.agent.turn import progress, results
from moorage_api.agent.turn.incomplete import cut_problem, is_result_after_all, step_problem
from moorage_api.agent.turn.model_turn import ask_model
from moorage_api.agent.turn.work import Work
from moorage_api.agent.unicode import repair_unicode
from moorage_api.events.schemas import ChatEvent, MessageEvent, StepEvent, ToolEvent, WaitEvent

MAX_ARGUMENT_CHARS = 16_000
MAX_CONSENT_ARGUMENTS_CHARS = 1_000
"""Length of a call's arguments in the question that asks the user for permission."""
YES = frozenset(
    {"yes", "y", "ok", "okay", "yes please", "go ahead", "allow", "confirm", "sure", "approved", "yep", "ja", "oui"}
    | {
        "sí",
        "si",
        "sim",
        "да",
        "はい",
        "네",
        "是",
        "是的",
        "好",
        "好的",
        "可以",
        "确认",
        "同意",
        "允许",
        "確認",
        "允許",
    }
)
POLLING_FUNCTIONS = frozenset({"shell_read_output", "shell_wait_process"})
"""Repeating these is normal while a command runs without printing anything, so they are not counted."""


async def execute(work: Work, tools: Tools) -> bool:
    """Get one answer of the model for the current step and run its calls. True if a question ended the turn."""
    work.gate.prepare()
    if work.state.calls:
        return await _run_calls(work, tools)
    if work.state.running_step() is None:
        step = work.state.next_pending_step()
        if step is None:
            await work.record(phase="summarising", messages=[user_message(prompts.notice(prompts.SUMMARISE))])
            return False
        steps = work.state.with_step(step.id, "running")
        await work.record(StepEvent(id=step.id, description=step.description, status="running"), steps=steps)
    answer = await ask_model(work, allowed={item.name for item in tools.functions} - PLANNING)
    if not answer.calls:
        await _take_text(work, tools, answer)
        return False
    await _take_calls(work, tools, answer)
    return await _run_calls(work, tools)


async def _take_text(work: Work, tools: Tools, answer: Answer) -> None:
    """Finish the step with an answer that calls no tool. JSON in the text may hold the arguments of `finish_step`."""
    text = answer.text.strip()
    if not text:
        await work.reject(answer, cut_problem(answer) or prompts.EMPTY_ANSWER)
        return
    result = _result_in(text)
    names = [function.name for function in tools.functions]
    problem = step_problem(answer, names) if result is None else ""
    if problem and not work.state.invalid:
        await work.reject(answer, problem)
        return
    if problem and is_result_after_all(work.state, answer, names):
        problem = ""
    message = work.with_foreign_fields(assistant_message(text), answer)
    if result is None:
        result = {"success": not problem, "result": prompts.step_without_result(problem, text) if problem else text}
    await _finish_step(work, result, message=message)


def _result_in(text: str) -> dict[str, Any] | None:
    """The result of a step that stands at the end of a text as JSON. With words behind it, it is only quoted."""
    for value in objects_in(text) if text.rstrip().endswith(("}", "```", "</tool_call>")) else ():
        with suppress(BadArgumentsError):
            return check_arguments(FINISH.parameters, value)
    return None


async def _take_calls(work: Work, tools: Tools, answer: Answer) -> None:
    """Store the calls with our own ids, put `finish_step` last, and start the first call that can be run."""
    kept = answer.calls[: work.limits.max_calls]
    if len(kept) < len(answer.calls):  # the step is not finished before the other calls were made
        kept = tuple(call for call in kept if call.name != FINISH.name) or kept
    raw = sorted(kept, key=lambda call: call.name == FINISH.name)
    calls = [
        tools.open_call(number, call, is_cut=call is answer.calls[-1] and bool(cut_problem(answer)))
        for number, call in enumerate(raw, work.state.next_call)
    ]
    if left_out := len(answer.calls) - len(raw):
        calls[-1] = calls[-1].model_copy(update={"note": prompts.left_out_calls(left_out, most=work.limits.max_calls)})
    invalid = work.count_invalid_answer() if all(call.problem for call in calls) else 0
    await _advance(
        work,
        tools,
        messages=[work.with_foreign_fields(call_message(answer.text, calls, raw), answer, raw)],
        calls=calls,
        invalid=invalid,
        next_call=work.state.next_call + len(calls),
        call_failed=False,
    )


async def _advance(
    work: Work,
    tools: Tools,
    *events: ChatEvent,
    messages: Sequence[Message] = (),
    calls: Sequence[OpenCall],
    **changes: Any,
) -> None:
    """Record, answer the calls that cannot be run, and start the next call in the same transaction."""
    new_messages, calls, new_events = list(messages), list(calls), list(events)
    while calls and calls[0].problem:
        new_messages.append(tool_message(calls[0], calls[0].problem))
        calls.pop(0)
    started = None
    if (
        calls
        and not tools.needs_consent(calls[0])
        and (toolset := tools.toolset(calls[0].function)) is not None
        and await tools.can_run(calls[0])
        and not await work.is_interrupted()
    ):
        started = calls[0] = calls[0].model_copy(update={"toolkit": toolset.name})
        new_events.append(_tool_event(started, "calling"))
    seqs = await work.record(*new_events, messages=new_messages, calls=calls, **changes)
    if started is not None:
        work.keys[started.number] = str(seqs[-1])


async def _run_calls(work: Work, tools: Tools) -> bool:
    while work.state.calls:
        call, rest = work.state.calls[0], work.state.calls[1:]
        if call.is_started:
            await _run(work, tools, call, rest)
        elif await work.is_interrupted():
            return False
        elif call.function == ASK.name:
            await _ask_user(work, call)
            return True
        elif call.function == NOTIFY.name:
            notification = MessageEvent(role="assistant", message=str(call.args["text"]))
            await _answer(work, tools, call, rest, prompts.USER_NOTIFIED, notification, outcome="succeeded")
        elif call.function == FINISH.name and work.state.call_failed:
            await _advance(work, tools, messages=[tool_message(call, prompts.FINISH_AFTER_FAILURE)], calls=rest)
        elif call.function == FINISH.name:
            await _finish_step(work, call.args)
        elif not await tools.can_run(call):
            reason = prompts.SWITCHED_OFF if tools.function(call.function) else prompts.no_function(call.function)
            await _answer(work, tools, call, rest, reason, outcome="failed")
        elif tools.needs_consent(call):
            await _ask_consent(work, tools, call, rest)
            return True
        else:
            await _advance(work, tools, calls=work.state.calls)
    return False


async def _run(work: Work, tools: Tools, call: OpenCall, rest: Sequence[OpenCall]) -> None:
    """Get the outcome of a started call, record it, and start the next call in the same transaction.

    A call that an earlier runner started and lost is sent again only if that cannot run it twice.
    """
    toolset, described = tools.toolset(call.function), tools.function(call.function)
    was_lost = call.number not in work.keys
    if toolset is None or described is None or (was_lost and not (described.is_remembered or described.read_only)):
        result = ToolResult("unknown", prompts.UNKNOWN_OUTCOME)
    else:
        key = await call_key(work, call)
        result = await work.unless_stopped(toolset.call(ToolCall(key, call.id, call.function, call.args)))
    await _answer(
        work,
        tools,
        call,
        rest,
        await results.text_for_model(work, call, repair_unicode(result.text), whole_in=result.whole_in),
        _tool_event(call, "called", result),
        outcome=result.outcome,
        seen=result.pictures,
    )


async def _answer(
    work: Work,
    tools: Tools,
    call: OpenCall,
    rest: Sequence[OpenCall],
    text: str,
    *events: ChatEvent,
    outcome: str,
    seen: Sequence[Picture] = (),
) -> None:
    """Record the result of a call and start the next one. A loop of calls is told to the model, and in the end ended.

    Raises TurnLimitError.
    """
    outcomes, repeats, period = work.state.outcomes, 1, 1
    if call.function not in POLLING_FUNCTIONS:
        outcomes = progress.add_outcome(
            outcomes, work.limits, call.function, call.args, outcome, text, [picture.key for picture in seen]
        )
        repeats, period = progress.count_repeats(outcomes)
    changes: dict[str, Any] = {
        "outcomes": outcomes,
        "call_failed": work.state.call_failed or outcome != "succeeded",
    }
    if repeats >= progress.REPEATS_BEFORE_WARNING:
        text += f"\n\n{prompts.repeated_calls(repeats, period)}"
    if repeats < work.limits.max_repeats:
        answer = pictures.attach(tool_message(call, text), seen)
        await _advance(work, tools, *events, messages=[answer], calls=rest, **changes)
        return
    answers = [tool_message(call, text), *(tool_message(other, prompts.NOT_RUN_ENDED) for other in rest)]
    await work.record(*events, messages=answers, calls=[], **changes)
    raise progress.TurnLimitError(progress.loop_ending(repeats, period))


async def call_key(work: Work, call: OpenCall) -> str:
    """The idempotency key of a started call: the seq of its stored `calling` event."""
    return work.keys.get(call.number) or str(await work.journal.calling_seq(call.id))


def _tool_event(call: OpenCall, status: Literal["calling", "called"], result: ToolResult | None = None) -> ToolEvent:
    assert call.toolkit is not None, "only started calls have events"
    return ToolEvent(
        tool_call_id=call.id,
        name=call.toolkit,
        function=call.function,
        args={name: _for_log(value) for name, value in call.args.items()},
        status=status,
        content=repair_unicode(result.content) if result is not None else None,
    )


def _for_log(value: Any) -> Any:
    """Clip an argument for the event log. The transcript contains the whole text."""
    return clip(value, MAX_ARGUMENT_CHARS) if isinstance(value, str) else value


def stopped_call_event(call: OpenCall) -> ToolEvent:
    """The `called` event of a call that was still running when the turn ended, so that clients stop waiting for it."""
    return _tool_event(call, "called", ToolResult("unknown", "", {"result": "Stopped"}))


async def _ask_user(work: Work, call: OpenCall) -> None:
    """End the turn with a question; the user's next message is the call's result."""
    saved = await work.save_files(results.paths_in(call.args))
    event = ToolEvent(tool_call_id=call.id, name="message", function=call.function, args=call.args, status="calling")
    await work.record(
        event,
        MessageEvent(role="assistant", message=str(call.args["text"]), attachments=list(saved.files)),
        event.model_copy(update={"status": "called", "content": {}}),
        WaitEvent(),
        phase="waiting",
        notes=[*work.state.notes, *prompts.unstored_lines(results.reasons(saved))],
    )


async def _ask_consent(work: Work, tools: Tools, call: OpenCall, rest: Sequence[OpenCall]) -> None:
    """End the turn with the question whether the call may be run; `read_consent` reads the answer."""
    described = tools.function(call.function)
    assert described is not None, "needs_consent is true for known functions only"
    # a backtick could end the code block that the arguments stand in
    args = json.dumps(call.args, ensure_ascii=False, indent=1).replace("`", "\\u0060")
    question = prompts.consent_question(described.confirm, call.function, clip(args, MAX_CONSENT_ARGUMENTS_CHARS))
    asked = call.model_copy(update={"consent": "asked"})
    await work.record(
        MessageEvent(role="assistant", message=question), WaitEvent(), phase="waiting", calls=[asked, *rest]
    )


async def read_consent(work: Work, texts: Sequence[str], *, consumed_seq: int) -> None:
    """Run the call if the user answered yes; otherwise give the user's answer to the model."""
    asked, *rest = work.state.calls
    text = "\n\n".join(texts)
    if is_yes(text):
        given = asked.model_copy(update={"consent": "given"})
        await work.record(consumed_seq=consumed_seq, phase="executing", calls=[given, *rest], **FRESH)
        return
    await work.record(
        messages=[tool_message(asked, prompts.consent_refused(text))],
        consumed_seq=consumed_seq,
        phase="executing",
        calls=rest,
        call_failed=True,
        **FRESH,
    )


def is_yes(text: str) -> bool:
    """True for a "yes" and nothing else. Any further word may be a condition, so the answer counts as a no."""
    return text.strip().strip(".!。！ ").casefold() in YES


async def _finish_step(work: Work, result: Mapping[str, Any], *, message: Message | None = None) -> None:
    """Close the running step and tell the model what to do next: as the result of its call, or as a user message."""
    step = work.state.running_step()
    if step is None:
        raise RuntimeError("finish_step was called while no step is running")
    saved = await work.save_files(results.paths_in(result))
    is_done = bool(result["success"])
    steps = work.state.with_step(step.id, "completed" if is_done else "failed")
    coming = next((step for step in steps if step.status == "pending"), None)
    phase: Phase
    if not is_done:
        phase, instruction = "replanning", prompts.FAILED_STEP
    elif coming is not None:
        phase, instruction = "executing", prompts.step_instruction(steps, coming)
    else:
        phase, instruction = "summarising", prompts.SUMMARISE
    instruction = "\n".join([*prompts.unstored_lines(results.reasons(saved)), instruction])
    if message is None:
        messages = [tool_message(open_call, instruction) for open_call in work.state.calls]
    else:
        messages = [message, user_message(prompts.notice(instruction))]
    await work.record(
        StepEvent(id=step.id, description=step.description, status="completed" if is_done else "failed"),
        messages=messages,
        steps=steps,
        phase=phase,
        calls=[],
        invalid=0,
        iterations=0,
        failures=0 if is_done else work.state.failures + 1,
        all_failures=work.state.all_failures + (not is_done),
        **results.changes(work.state, saved),
    )
