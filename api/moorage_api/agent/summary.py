"""The last word of a turn: the answer to the user, with the files that came out."""

from __future__ import annotations

from moorage_api.agent import prompts
from moorage_api.agent.answers import AnswerBuilder, objects_in
from moorage_api.agent.messages import assistant_message
from moorage_api.agent.partials import shown
from moorage_api.agent.work import Work
from moorage_api.events.schemas import DoneEvent, MessageEvent, PlanEvent


async def sum_up(work: Work) -> bool:
    """Ask for the final answer. True when it was given and the turn is over."""
    if work.state.attachments is None:
        # stored before the model is asked, so that a killed runner's successor stores nothing twice
        await work.record(attachments=await work.saved_files(work.state.files))
    stream_id = f"answer-{work.state.turn}"
    answer = await work.ask(progress=shown(work, stream_id, _text_so_far))
    said = _message(answer.text)
    if not said:
        await work.reject(answer, prompts.NO_TOOLS_NOW)
        return False
    await work.record(
        MessageEvent(role="assistant", message=said, attachments=work.state.attachments or [], stream_id=stream_id),
        PlanEvent(steps=work.state.steps),
        DoneEvent(),
        messages=[assistant_message(said)],
        phase="idle",
        invalid=0,
    )
    return True


def _text_so_far(builder: AnswerBuilder) -> str:
    return builder.answer().text.strip()


def _message(text: str) -> str:
    """The answer's text; some models wrap it in JSON."""
    for value in objects_in(text):
        if isinstance(message := value.get("message"), str) and message.strip():
            return message.strip()
    return text.strip()
