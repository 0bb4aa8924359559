"""One turn of the model: send as much of the transcript as fits, and count the turn."""

from __future__ import annotations

from collections.abc import Sequence

from moorage_api.agent import compaction
from moorage_api.agent.answers import Answer
from moorage_api.agent.llm import LlmError, Progress, WindowFullError
from moorage_api.agent.ports import Function
from moorage_api.agent.progress import check_model_turns
from moorage_api.agent.work import Work


async def ask_model(
    work: Work, *, tools: Sequence[Function] = (), force: bool = False, progress: Progress | None = None
) -> Answer:
    """Send the transcript to the model and return its answer.

    Raises LlmError, LimitReachedError and InterruptedByUserError.
    """
    check_model_turns(work.state, work.limits)
    await work.add_notes()
    for _ in range(4):
        messages = await compaction.build_request(work, tools)
        try:
            answer = await work.unless_interrupted(
                work.llm.ask(messages, tools=tools, force=force, max_retries=work.limits.max_retries, progress=progress)
            )
        except WindowFullError as error:
            failure = error
            await compaction.reduce_window(work)
            continue
        work.state = work.state.model_copy(
            update={
                "iterations": work.state.iterations + 1,
                "turn_iterations": work.state.turn_iterations + 1,
            }
        )
        return answer
    raise LlmError(
        failure.code,
        "The model's context window is too small for this task, even with the shortest form of the conversation; "
        f"choose a model with a larger window. {failure}",
    ) from failure
