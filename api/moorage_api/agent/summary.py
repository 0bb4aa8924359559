"""The end of a turn: the final answer to the user, with the files that the steps produced."""

from __future__ import annotations

from moorage_api.agent import prompts, results
from moorage_api.agent.answers import AnswerBuilder, objects_in
from moorage_api.agent.messages import assistant_message
from moorage_api.agent.model_turn import ask_model
from moorage_api.agent.partials import show_partials
from moorage_api.agent.work import Work
from moorage_api.events.schemas import DoneEvent, MessageEvent, PlanEvent


async def sum_up(work: Work) -> bool:
    """Ask for the final answer. True when the answer is recorded and the turn is over."""
    await results.store_untried(work)
    stream_id = f"answer-{work.state.turn}"
    answer = await ask_model(work, progress=show_partials(work, stream_id, _text_so_far))
    message = _message(answer.text)
    if not message:
        await work.reject(answer, prompts.NO_TOOLS_NOW)
        return False
    await work.record(
        MessageEvent(
            role="assistant",
            message=message + results.unmentioned(work, message),
            attachments=work.state.attachments or [],
            stream_id=stream_id,
        ),
        PlanEvent(steps=work.state.steps),
        DoneEvent(),
        messages=[work.with_foreign_fields(assistant_message(message), answer)],
        phase="idle",
        invalid=0,
    )
    return True


def _text_so_far(builder: AnswerBuilder) -> str:
    return builder.answer().text.strip()


def _message(text: str) -> str:
    """The text of the answer, without the JSON object that some models put around it."""
    for value in objects_in(text):
        if isinstance(message := value.get("message"), str) and message.strip():
            return message.strip()
    return text.strip()
