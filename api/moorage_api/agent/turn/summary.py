"""The end of a turn: the final answer to the user, with the files that the steps produced."""

from __future__ import annotations

from moorage_api.agent import prompts
from moorage_api.agent.messages import assistant_message
from moorage_api.agent.model.incoming.answers import AnswerBuilder, whole_object
from moorage_api.agent.model.incoming.half_answers import is_nothing_but_notation
from moorage_api.agent.model.servers.errors import LlmError
from moorage_api.agent.turn import results
from moorage_api.agent.turn.incomplete import cut_problem, end_note
from moorage_api.agent.turn.model_turn import ask_model
from moorage_api.agent.turn.partials import show_partials
from moorage_api.agent.turn.work import Work
from moorage_api.events.schemas import DoneEvent, ErrorEvent, MessageEvent, PlanEvent


async def sum_up(work: Work) -> bool:
    """Ask for the final answer. True when the answer is recorded and the turn is over.

    A turn that ends at a limit (`AgentState.ending`) has one attempt, and ends with the error after its last answer.
    """
    await results.store_untried(work)
    stream_id = f"answer-{work.state.turn}"
    ending = work.state.ending
    try:
        answer = await ask_model(work, allowed=(), on_progress=show_partials(work, stream_id, _text_so_far))
    except LlmError as error:
        if ending is None:
            raise
        raise LlmError(ending.code, f"{ending.reason}. There is no last answer: {error}") from error
    message = _message(answer.text)
    if not message and ending:
        raise LlmError(ending.code, ending.reason)
    if not message:
        await work.reject(answer, prompts.NO_TOOLS_NOW)
        return False
    problem = cut_problem(answer) or (prompts.NO_TOOLS_NOW if is_nothing_but_notation(message) else "")
    if problem and not work.state.invalid and not ending:
        await work.reject(answer, problem)
        return False
    message += end_note(answer)
    await work.record(
        MessageEvent(
            role="assistant",
            message=message + results.name_unmentioned(work, message),
            attachments=work.state.attachments or [],
            stream_id=stream_id,
        ),
        PlanEvent(steps=work.state.steps),
        ErrorEvent(error=ending.reason, code=ending.code) if ending else DoneEvent(),
        messages=[work.with_foreign_fields(assistant_message(message), answer)],
        phase="idle",
        invalid=0,
    )
    return True


def _text_so_far(builder: AnswerBuilder) -> str:
    return builder.answer().text.strip()


def _message(text: str) -> str:
    """The text of the answer, without the JSON object that some models put around it."""
    value = whole_object(text) or {}
    message = value.get("message")
    return message.strip() if isinstance(message, str) and message.strip() else text.strip()
