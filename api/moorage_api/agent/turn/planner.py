"""Ask the model for a plan, and for a new one when a step failed or the user sent a message."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import from_json

from moorage_api.agent import prompts
from moorage_api.agent.messages import assistant_message, call_message, clip, tool_message, user_message
from moorage_api.agent.model.incoming.answers import Answer, AnswerBuilder, calls_in_text, objects_in, parse_object
from moorage_api.agent.model.incoming.half_answers import is_announcement, is_call_notation, is_nothing_but_notation
from moorage_api.agent.ports import Function, Message
from moorage_api.agent.toolsets.plan_functions import MAKE_PLAN, PLANNING, UPDATE_PLAN
from moorage_api.agent.turn.incomplete import cut_problem, end_note
from moorage_api.agent.turn.model_turn import ask_model
from moorage_api.agent.turn.partials import show_partials
from moorage_api.agent.turn.progress import check_failures
from moorage_api.agent.turn.work import Work
from moorage_api.events.schemas import ChatEvent, DoneEvent, MessageEvent, PlanEvent, PlanStep, StepEvent, TitleEvent

MAX_STEP_CHARS = 4_000
"""Length of the last step when the plan had too many steps, and the others became part of it."""
MAX_TITLE_CHARS = 80


@dataclass(frozen=True)
class Draft:
    title: str
    message: str
    steps: list[str]


async def plan(work: Work) -> bool:
    """Ask for the first plan of a turn. True if the model answered without steps, which ends the turn."""
    stream_id = f"plan-{work.state.turn}-{work.state.plans}"
    answer = await ask_model(
        work, allowed={MAKE_PLAN.name}, force=True, on_progress=show_partials(work, stream_id, _message_so_far)
    )
    draft = _draft(answer, MAKE_PLAN)
    if draft is None or not (draft.steps or draft.message):
        await work.reject(answer, prompts.MUST_PLAN.format(name=MAKE_PLAN.name))
        return False
    if not draft.steps:
        problem = _problem_of(answer, draft)
        if problem and not work.state.invalid:
            await work.reject(answer, problem)
            return False
        is_call = bool(problem) and is_nothing_but_notation(answer.text, {MAKE_PLAN.name})
        draft = replace(draft, message=draft.message + (prompts.CALL_NOTE if is_call else end_note(answer)))
    events: list[ChatEvent] = []
    if not work.state.titled:
        events.append(TitleEvent(title=_choose_title(work, draft)))
    if draft.message:
        events.append(MessageEvent(role="assistant", message=draft.message, stream_id=stream_id))
    if not draft.steps:
        message = work.with_foreign_fields(assistant_message(draft.message), answer)
        await work.record(*events, DoneEvent(), messages=[message], phase="idle", titled=True, invalid=0)
        return True
    steps = _number_steps(work, draft.steps, [])
    await work.record(
        *events,
        PlanEvent(steps=steps),
        messages=_exchange_messages(work, answer, prompts.step_instruction(steps, steps[0])),
        phase="executing",
        titled=True,
        invalid=0,
        iterations=0,
        steps=steps,
        plans=work.state.plans + 1,
        next_step=work.state.next_step + len(steps),
        next_call=work.state.next_call + len(answer.calls),
    )
    return False


async def replan(work: Work) -> None:
    """Ask for the steps that are left. Finished steps stay; the running step continues if it comes first again."""
    state = work.state
    check_failures(state, work.limits)
    stream_id = f"plan-{state.turn}-{state.plans}"
    answer = await ask_model(
        work, allowed={UPDATE_PLAN.name}, force=True, on_progress=show_partials(work, stream_id, _message_so_far)
    )
    draft = _draft(answer, UPDATE_PLAN)
    if draft is None and state.invalid and not answer.calls and answer.text.strip():
        draft = _keep_plan(work, answer.text.strip())
    if draft is None:
        await work.reject(answer, prompts.MUST_PLAN.format(name=UPDATE_PLAN.name))
        return
    over = [step for step in state.steps if step.status in ("completed", "failed")]
    left = [step for step in state.steps if step.status == "pending"]
    dropped = state.running_step()
    if dropped is not None and draft.steps[:1] == [dropped.description]:
        left.append(dropped)
        dropped = None
    if dropped is not None:
        dropped = dropped.model_copy(update={"status": "failed"})
        over.append(dropped)
    coming = _number_steps(work, draft.steps, left)
    steps = [*over, *coming]
    events: list[ChatEvent] = []
    if draft.message:
        events.append(MessageEvent(role="assistant", message=draft.message, stream_id=stream_id))
    if dropped is not None:
        events.append(StepEvent(**dropped.model_dump()))
    instruction = prompts.step_instruction(steps, coming[0]) if coming else prompts.SUMMARISE
    await work.record(
        *events,
        PlanEvent(steps=steps),
        messages=_exchange_messages(work, answer, instruction),
        phase="executing" if coming else "summarising",
        invalid=0,
        iterations=0,
        steps=steps,
        plans=state.plans + 1,
        next_step=state.next_step + len(draft.steps),
        next_call=state.next_call + len(answer.calls),
    )


def _keep_plan(work: Work, text: str) -> Draft:
    """The plan as it is. The model answers the user with words, although it was asked for the plan twice."""
    steps = [step.description for step in work.state.steps if step.status in ("running", "pending")]
    return Draft("", "" if is_call_notation(text, {UPDATE_PLAN.name}) else text, steps)


def _problem_of(answer: Answer, draft: Draft) -> str:
    """Why an answer without steps is not a complete answer to the user; empty if it may be one."""
    if problem := cut_problem(answer):
        return problem
    if answer.calls or calls_in_text(answer.text, PLANNING):
        return ""
    if answer.lacks_call or is_call_notation(answer.text, PLANNING):
        return prompts.MUST_PLAN.format(name=MAKE_PLAN.name)
    return prompts.ANNOUNCED_PLAN if is_announcement(draft.message) else ""


def _draft(answer: Answer, function: Function) -> Draft | None:
    """Read the plan from a call or from JSON in the text. For `make_plan`, plain text is an answer without steps.

    A call of the other planning function is a plan, too: both are always offered.
    """
    # a plan is only words, so it is also read from a text that is nothing but this call
    for call in answer.calls or calls_in_text(answer.text, PLANNING):
        if call.name in PLANNING and (args := parse_object(call.arguments)) is not None:
            return _read_draft(args, function)
    if answer.calls:
        return None
    for value in objects_in(answer.text):
        if "steps" in value:
            return _read_draft(value, function)
    text = answer.text.strip()
    return Draft("", text, []) if text and function is MAKE_PLAN else None


def _read_draft(args: dict[str, Any], function: Function) -> Draft | None:
    steps = args.get("steps") or []
    if isinstance(steps, str):
        steps = [line for line in steps.splitlines() if line.strip()]
    if not isinstance(steps, list) or (function is UPDATE_PLAN and "steps" not in args):
        return None
    described = [text for step in steps if (text := _step_text(step))]
    return Draft(_stripped_text(args.get("title")), _stripped_text(args.get("message")), described)


def _step_text(step: object) -> str:
    """The text of a step. Some models send an object instead of a string."""
    if isinstance(step, dict):
        step = next((step[key] for key in ("description", "step", "title", "name") if step.get(key)), "")
    return _stripped_text(step)


def _stripped_text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _choose_title(work: Work, draft: Draft) -> str:
    """The model's title, or the beginning of the user's first message."""
    first = next((str(message["content"]) for message in work.journal.transcript if message["role"] == "user"), "")
    title = " ".join((draft.title or first).split())
    return title if len(title) <= MAX_TITLE_CHARS else f"{title[: MAX_TITLE_CHARS - 1]}…"


def _number_steps(work: Work, descriptions: list[str], known: list[PlanStep]) -> list[PlanStep]:
    """Give each step an id. A step with the same description as a step in `known` keeps that step."""
    known = list(known)
    steps = []
    most = work.limits.max_steps
    if len(descriptions) > most:
        descriptions = [*descriptions[: most - 1], clip("; then: ".join(descriptions[most - 1 :]), MAX_STEP_CHARS)]
    for place, description in enumerate(descriptions):
        same = next((step for step in known if step.description == description), None)
        if same is not None:
            known.remove(same)
        steps.append(same or PlanStep(id=f"step{work.state.next_step + place}", description=description))
    return steps


def _exchange_messages(work: Work, answer: Answer, instruction: str) -> list[Message]:
    """The transcript messages: the model's call and, as its result, the next instruction."""
    if not answer.calls:
        message = work.with_foreign_fields(assistant_message(answer.text), answer)
        return [message, user_message(prompts.notice(instruction))]
    calls = work.number_calls(answer.calls)
    for call, raw in zip(calls, answer.calls, strict=True):
        call.args = parse_object(raw.arguments) or {}
    message = work.with_foreign_fields(call_message(answer.text, calls, answer.calls), answer, answer.calls)
    return [message, *(tool_message(call, instruction) for call in calls)]


def _message_so_far(builder: AnswerBuilder) -> str:
    answer = builder.answer()
    if not answer.calls:
        return answer.text.strip()
    if answer.calls[0].name not in PLANNING:
        return ""
    try:
        args = from_json(answer.calls[0].arguments, allow_partial="trailing-strings")
    except ValueError:
        return ""
    return _stripped_text(args.get("message")) if isinstance(args, dict) else ""
