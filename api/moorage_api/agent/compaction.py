"""Keep what the model is sent within its window. The stored transcript stays whole; the state says what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moorage_api.agent import prompts
from moorage_api.agent.llm import LlmError
from moorage_api.agent.messages import (
    clipped,
    elided,
    merged_users,
    tokens,
    user_message,
    with_clipped_content,
)
from moorage_api.agent.ports import Function, Message

if TYPE_CHECKING:
    from moorage_api.agent.work import Work

KEPT_WHOLE = 0.5
"""Share of the room that the newest messages keep whole when older tool outputs are elided."""
KEPT_AT_ALL = 0.4
"""Share of the room that the newest messages take when everything older is summarised."""
ENOUGH = 0.8
"""Eliding has to bring the conversation below this share, or it would be needed again at once."""
ELIDED_CHARS = 600
SUMMARY_CHARS = 8_000
LEAST_TOKENS = 1_000


async def request(work: Work, tools: Sequence[Function]) -> list[Message]:
    """The messages to send: the system prompt, then as much of the transcript as fits. May record what it left out."""
    system: Message = {"role": "system", "content": prompts.system(work.guidance)}
    room = _room(work, [system], tools)
    if tokens(_view(work)) > room:
        await _shorten(work, room)
    return [system, *_fitted(_view(work), room)]


async def expect_less(work: Work) -> None:
    """The server found the last request too long: take its window to be smaller from now on."""
    shortened = work.state.shortened
    now = shortened.window(work.llm)
    sent = tokens(_view(work)) + work.llm.answer_tokens
    smaller = max(int(min(now, sent) * 0.7), 2 * LEAST_TOKENS)
    await work.record(
        shortened=shortened.model_copy(update={"context_tokens": smaller, "context_of": work.llm.identity})
    )


def _room(work: Work, system: Sequence[Message], tools: Sequence[Function]) -> int:
    window = work.state.shortened.window(work.llm)
    answer = min(work.llm.answer_tokens, window // 4)
    described = tokens([{"name": tool.name, "about": tool.description, "schema": tool.parameters} for tool in tools])
    return max(window - answer - tokens(system) - described, LEAST_TOKENS)


def _view(work: Work) -> list[Message]:
    shortened = work.state.shortened
    start = shortened.summarised_before
    messages = [user_message(prompts.shortened(shortened.summary))] if start else []
    messages += [
        elided(message, ELIDED_CHARS) if position < shortened.elided_before else message
        for position, message in enumerate(work.journal.transcript[start:], start)
    ]
    return merged_users(messages)


async def _shorten(work: Work, room: int) -> None:
    """Elide old outputs first, as that costs nothing; when it is not enough, summarise all but the newest messages."""
    shortened = work.state.shortened.model_copy(update={"elided_before": _start_of_newest(work, room * KEPT_WHOLE)})
    await work.record(shortened=shortened)
    if tokens(_view(work)) <= room * ENOUGH:
        return
    cut = _start_of_newest(work, room * KEPT_AT_ALL)
    if cut <= shortened.summarised_before:
        return  # the newest exchange alone fills the room: it is clipped when sent
    summary = await _summary(work, cut, room)
    await work.record(shortened=shortened.model_copy(update={"summarised_before": cut, "summary": summary}))


def _start_of_newest(work: Work, limit: float) -> int:
    """Position from which the transcript takes no more than `limit` tokens; never between a call and its result."""
    transcript = work.journal.transcript
    total, start = 0, len(transcript)
    for position in range(len(transcript) - 1, -1, -1):
        total += tokens(transcript[position])
        if total > limit and start < len(transcript):
            break
        if transcript[position]["role"] != "tool":
            start = position
    return start


async def _summary(work: Work, cut: int, room: int) -> str:
    shortened = work.state.shortened
    older = work.journal.transcript[shortened.summarised_before : cut]
    told = "\n".join(_told(message) for message in older)
    if shortened.summary:
        told = f"{prompts.shortened(shortened.summary)}\n{told}"
    told = clipped(told, int(room * 2.5))
    try:
        answer = await work.unless_interrupted(
            work.llm.ask([user_message(f"{told}\n\n{prompts.SHORTEN}")], max_retries=work.limits.max_retries)
        )
        summary = answer.text.strip()
    except LlmError:
        summary = ""  # what can be said without the model has to do; it is asked again next
    return prompts.with_plan(clipped(summary or told, SUMMARY_CHARS), work.state.steps)


def _told(message: Message) -> str:
    """A message as plain text."""
    lines = [f"{message['role']}: {clipped(str(message['content']), ELIDED_CHARS)}"] if message["content"] else []
    lines += [
        f"{call['function']['name']}({clipped(call['function']['arguments'], ELIDED_CHARS)})"
        for call in message.get("tool_calls", ())
    ]
    return "\n".join(lines)


def _fitted(messages: list[Message], room: int) -> list[Message]:
    """Clip the longest texts harder and harder until all fits."""
    limit = 100_000
    while tokens(messages) > room and limit > 200:
        messages = [with_clipped_content(message, limit) for message in messages]
        limit //= 2
    return messages
