"""Keep requests within the model's context window.

The stored transcript stays complete; `AgentState.shortened` says which part of it the model no longer gets.
"""

from __future__ import annotations

from collections.abc import Sequence

from moorage_api.agent import prompts
from moorage_api.agent.messages import (
    clip,
    clip_content,
    elide,
    flatten,
    merge_user_messages,
    user_message,
)
from moorage_api.agent.model.incoming import foreign
from moorage_api.agent.model.llm import LlmError
from moorage_api.agent.model.outgoing import pictures
from moorage_api.agent.ports import Function, Message
from moorage_api.agent.tokens import count_tokens
from moorage_api.agent.turn.work import Work
from moorage_api.events.schemas import ChatEvent

KEPT_WHOLE = 0.5
"""When old tool outputs are elided, the newest messages up to this share of the room stay whole."""
KEPT_AFTER_SUMMARY = 0.4
"""When old messages are summarised, the newest messages up to this share of the room stay."""
ENOUGH = 0.8
"""Eliding is enough if the conversation is then below this share of the room. Otherwise it is also summarised."""
KEPT_QUOTES = 0.25
"""The user's own words in summarised messages stay whole up to this share of the room."""
MIN_QUOTE_CHARS = 100
ASK = "message_ask_user"
ELIDED_CHARS = 600
SUMMARY_CHARS = 8_000
LEAST_TOKENS = 1_000


async def build_request(work: Work, tools: Sequence[Function]) -> list[Message]:
    """Build the messages to send: the system prompt, then the transcript, shortened if it does not fit.

    Records in the state what it shortened.
    """
    system: Message = {
        "role": "system",
        "content": prompts.system_prompt(work.guidance, started_on=work.state.started_on),
    }
    room = _available_tokens(work, [system], tools)
    await _limit_pictures(work)
    if count_tokens(_view(work)) > room:
        await _shorten(work, room)
    return [system, *_clip_to_fit(_view(work), room)]


async def leave_out_pictures(work: Work, *, keep: int = 0) -> bool:
    """Send words instead of all pictures but the newest from now on. False if there are none to leave out."""
    shortened, transcript = work.state.shortened, work.journal.transcript
    start = max(shortened.pictures_before, shortened.summarised_before)
    places = [place for place in range(start, len(transcript)) for _ in pictures.references(transcript[place])]
    if not places or not work.llm.sees:
        return False
    end = places[-keep] if 0 < keep < len(places) else places[-1] + 1
    if end <= places[0]:
        return False
    await work.record(shortened=shortened.model_copy(update={"pictures_before": end}))
    return True


async def show_pictures_from(work: Work, position: int) -> None:
    """Undo `leave_out_pictures`: the pictures were not the reason."""
    if work.state.shortened.pictures_before != position:
        await work.record(shortened=work.state.shortened.model_copy(update={"pictures_before": position}))


async def _limit_pictures(work: Work) -> None:
    """Leave out the older half of the pictures when they are too many: all at once, so that most requests only grow."""
    shortened = work.state.shortened
    start = max(shortened.pictures_before, shortened.summarised_before)
    most = min(work.limits.max_pictures, work.llm.max_pictures or work.limits.max_pictures)
    if pictures.count(work.journal.transcript[start:]) > most:
        await leave_out_pictures(work, keep=(most + 1) // 2)


async def flatten_history(work: Work) -> bool:
    """Send the calls and results so far as plain text from now on. False if there are none that are not plain yet."""
    shortened, end = work.state.shortened, len(work.journal.transcript)
    start = max(shortened.flat_before, shortened.summarised_before)
    newer = work.journal.transcript[start:]
    if not any(message.get("tool_calls") or foreign.STORED in message for message in newer):
        return False
    await work.record(shortened=shortened.model_copy(update={"flat_before": end}))
    return True


async def reduce_window(work: Work, *events: ChatEvent, named: int | None = None, share: float = 0.7) -> None:
    """Assume a smaller context window from now on, and store `events` with that: `named`, if that is smaller.

    Otherwise a share of what the server has just refused as too long.
    """
    shortened = work.state.shortened
    smaller, now = named or 0, shortened.window(work.llm)
    if not 0 < smaller < now:
        sent = count_tokens(_view(work)) * work.state.token_ratio(work.llm) + work.llm.answer_tokens
        smaller = int(min(now, sent) * share)
    smaller = max(smaller, 2 * LEAST_TOKENS)
    await work.record(
        *events, shortened=shortened.model_copy(update={"context_tokens": smaller, "context_of": work.llm.identity})
    )


def _available_tokens(work: Work, system: Sequence[Message], tools: Sequence[Function]) -> int:
    """How many tokens the conversation may have, by our own count."""
    whole = work.state.shortened.window(work.llm)
    window = int(whole / work.state.token_ratio(work.llm))
    answer = int(min(work.llm.answer_tokens, whole // 4) / work.state.token_ratio(work.llm))
    return max(window - answer - count_tokens(system) - count_described(tools), LEAST_TOKENS)


def count_described(tools: Sequence[Function]) -> int:
    """Estimate the tokens of the descriptions of tools."""
    return count_tokens([{"name": tool.name, "about": tool.description, "schema": tool.parameters} for tool in tools])


def _view(work: Work) -> list[Message]:
    """The transcript as the model gets it: the summary, elided messages, and the newest messages unchanged."""
    shortened = work.state.shortened
    start = shortened.summarised_before
    summary = prompts.earlier_conversation(shortened.summary, shortened.quotes, today=work.state.today)
    messages = [user_message(summary)] if start else []
    for position, message in enumerate(foreign.restore(work.journal.transcript[start:], work.llm.identity), start):
        if not work.llm.sees:
            message = pictures.to_words(message, pictures.IS_BLIND)
        elif position < shortened.pictures_before:
            message = pictures.to_words(message, pictures.IS_OLD)
        if position < shortened.elided_before:
            message = elide(message, ELIDED_CHARS)
        messages.append(
            flatten(message, is_bare=position < shortened.bare_before) if position < shortened.flat_before else message
        )
    return merge_user_messages(messages)


async def _shorten(work: Work, room: int) -> None:
    """Elide old tool outputs (no model call needed); if that is not enough, summarise all but the newest messages."""
    start = _start_of_newest(work, room * KEPT_WHOLE)
    shortened = work.state.shortened.model_copy(
        update={"elided_before": start, "pictures_before": max(start, work.state.shortened.pictures_before)}
    )
    await work.record(shortened=shortened)
    if count_tokens(_view(work)) <= room * ENOUGH:
        return
    cut = _start_of_newest(work, room * KEPT_AFTER_SUMMARY)
    if cut <= shortened.summarised_before:
        return  # the newest exchange alone fills the room; `_clip_to_fit` clips it
    summary = await _summarise(work, cut, room)
    quotes = quote_user(work.journal.transcript[:cut], room * KEPT_QUOTES)
    await work.record(
        shortened=shortened.model_copy(update={"summarised_before": cut, "summary": summary, "quotes": quotes})
    )


def quote_user(messages: Sequence[Message], limit: float) -> list[str]:
    """What the user wrote: messages and answers to questions. The longest are clipped until all fit into `limit`."""
    asked = {
        call["id"] for message in messages for call in message.get("tool_calls", ()) if call["function"]["name"] == ASK
    }
    quotes = [
        str(message["content"])
        for message in messages
        if (message["role"] == "user" and not str(message["content"]).startswith(prompts.MARK))
        or message.get("tool_call_id") in asked
    ]
    chars = max((len(quote) for quote in quotes), default=0)
    while chars > MIN_QUOTE_CHARS and count_tokens([user_message(quote) for quote in quotes]) > limit:
        chars = chars * 3 // 4
        quotes = [clip(quote, chars) for quote in quotes]
    return quotes


def _start_of_newest(work: Work, limit: float) -> int:
    """Index of the first of the newest messages that fit into `limit` tokens; never between a call and its result."""
    transcript = foreign.restore(work.journal.transcript, work.llm.identity)
    total, start = 0, len(transcript)
    for position in range(len(transcript) - 1, -1, -1):
        total += count_tokens(transcript[position])
        if total > limit and start < len(transcript):
            break
        if transcript[position]["role"] != "tool":
            start = position
    return start


async def _summarise(work: Work, cut: int, room: int) -> str:
    shortened = work.state.shortened
    older = work.journal.transcript[shortened.summarised_before : cut]
    conversation = "\n".join(_to_plain_text(message) for message in older)
    if shortened.summary:
        conversation = f"{prompts.earlier_conversation(shortened.summary)}\n{conversation}"
    conversation = clip(conversation, int(room * 2.5))
    try:
        answer = await work.unless_interrupted(
            work.llm.ask([user_message(f"{conversation}\n\n{prompts.SHORTEN}")], max_retries=work.limits.max_retries)
        )
        summary = answer.text.strip()
    except LlmError:
        summary = ""  # the clipped conversation replaces the summary; the next request reports a lasting error
    return prompts.summary_with_plan(clip(summary or conversation, SUMMARY_CHARS), work.state.steps)


def _to_plain_text(message: Message) -> str:
    lines = [f"{message['role']}: {clip(str(message['content']), ELIDED_CHARS)}"] if message["content"] else []
    lines += [
        f"{call['function']['name']}({clip(call['function']['arguments'], ELIDED_CHARS)})"
        for call in message.get("tool_calls", ())
    ]
    return "\n".join(lines)


def _clip_to_fit(messages: list[Message], room: int) -> list[Message]:
    """Clip the longest texts, with a smaller limit in each pass, until all messages fit.

    If that is not enough, drop the fields that only the model understands, oldest first.
    """
    for place, message in enumerate(messages):
        if count_tokens(messages) <= room:
            break
        messages[place] = pictures.to_words(message, pictures.IS_OLD)
    limit = 100_000
    while count_tokens(messages) > room and limit > 200:
        messages = [clip_content(message, limit) for message in messages]
        limit //= 2
    for place, message in enumerate(messages[:-1]):
        if count_tokens(messages) <= room:
            break
        messages[place] = foreign.remove(message)
    return messages
